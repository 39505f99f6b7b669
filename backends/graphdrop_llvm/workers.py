"""Threads that share the units of large kernels; they sleep when there is nothing to do.

A job is a kernel and a number of units.  Whoever is awake takes the next few units until none are
left; the caller takes part, and does not wait for workers that have not woken up by then.  Results
do not depend on who did what, as units touch memory of their own.

To wake a thread takes longer than many kernels, so a worker looks for the next job for a while
before it sleeps, and the caller likewise for workers to finish: at first all the time, then letting
others have the core after each look.
"""

from __future__ import annotations

import platform

SHARES = 4  # of units, for each thread: the last to finish is then not far behind
LOOKS = 1000  # before a thread lets others have its core: 20 to 40 microseconds
YIELDS = 300  # looks after that, before it sleeps: about 100 microseconds where nobody wants it
_X86 = platform.machine() in ("x86_64", "AMD64")
PAUSE = "call void @llvm.x86.sse2.pause()" if _X86 else "; this processor needs no hint"


def _look(before: str, place: str, relation: str, value: str) -> str:
    """Look at a number as long as it stands in a relation to a value, but not for long."""
    return f"""  br label %look
look:
  %looks = phi i64 [ 0, %{before} ], [ %looked, %again ]
  %found = load atomic i64, ptr {place} seq_cst, align 8
  %waiting = icmp {relation} i64 %found, {value}
  %patient = icmp ult i64 %looks, {LOOKS + YIELDS}
  %stay = and i1 %waiting, %patient
  br i1 %stay, label %pause, label %enter
pause:
  %early = icmp ult i64 %looks, {LOOKS}
  br i1 %early, label %spin, label %let
spin:
  {PAUSE}
  br label %again
let:
  %yielded = call i32 @sched_yield()
  br label %again
again:
  %looked = add i64 %looks, 1
  br label %look
enter:"""


POOL = f"""
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @sched_yield()
{"declare void @llvm.x86.sse2.pause()" if _X86 else ""}
declare i64 @llvm.umin.i64(i64, i64)
declare i64 @llvm.umax.i64(i64, i64)

@lock = internal global [128 x i8] zeroinitializer, align 64
@wake = internal global [128 x i8] zeroinitializer, align 64
@done = internal global [128 x i8] zeroinitializer, align 64
@threads = internal global i64 1      ; that may take part, the caller included
@busy = internal global i32 0         ; whether some caller has the workers
@turn = internal global i64 0         ; counts jobs
@open = internal global i64 0         ; whether workers may still join the job
@joined = internal global i64 0       ; workers that did
@left = internal global i64 0         ; workers that have finished
@kernel = internal global ptr null
@table = internal global ptr null
@sizes = internal global ptr null
@units = internal global i64 0
@share = internal global i64 1
@next = internal global i64 0, align 64

define void @gd_start() {{
  %a = call i32 @pthread_mutex_init(ptr @lock, ptr null)
  %b = call i32 @pthread_cond_init(ptr @wake, ptr null)
  %c = call i32 @pthread_cond_init(ptr @done, ptr null)
  store i64 1, ptr @threads
  store i32 0, ptr @busy
  store i64 0, ptr @open
  ret void
}}

define void @gd_threads(i64 %n) {{
  store atomic i64 %n, ptr @threads seq_cst, align 8
  ret void
}}

define i64 @gd_allowed() {{
  %n = load atomic i64, ptr @threads seq_cst, align 8
  ret i64 %n
}}

define internal void @work(ptr %f, ptr %t, ptr %s, i64 %n, i64 %share) {{
entry:
  br label %take
take:
  %first = atomicrmw add ptr @next, i64 %share seq_cst
  %some = icmp ult i64 %first, %n
  br i1 %some, label %do, label %out
do:
  %end = add i64 %first, %share
  %last = call i64 @llvm.umin.i64(i64 %end, i64 %n)
  call void %f(ptr %t, ptr %s, i64 %first, i64 %last)
  br label %take
out:
  ret void
}}

define void @gd_worker() {{
entry:
  br label %idle
idle:
  %seen = phi i64 [ 0, %entry ], [ %now, %closed ], [ %now, %finished ]
{_look("idle", "@turn", "eq", "%seen")}
  %l = call i32 @pthread_mutex_lock(ptr @lock)
  br label %check
check:
  %now = load i64, ptr @turn
  %same = icmp eq i64 %now, %seen
  br i1 %same, label %sleep, label %awake
sleep:
  %w = call i32 @pthread_cond_wait(ptr @wake, ptr @lock)
  br label %check
awake:
  %allowed = load i64, ptr @threads
  %others = load i64, ptr @joined
  %mine = add i64 %others, 1
  %room = icmp ult i64 %mine, %allowed
  %is.open = load i64, ptr @open
  %opened = icmp ne i64 %is.open, 0
  %join = and i1 %room, %opened
  br i1 %join, label %joins, label %closed
closed:
  %u0 = call i32 @pthread_mutex_unlock(ptr @lock)
  br label %idle
joins:
  store i64 %mine, ptr @joined
  %f = load ptr, ptr @kernel
  %t = load ptr, ptr @table
  %s = load ptr, ptr @sizes
  %n = load i64, ptr @units
  %share = load i64, ptr @share
  %u1 = call i32 @pthread_mutex_unlock(ptr @lock)
  call void @work(ptr %f, ptr %t, ptr %s, i64 %n, i64 %share)
  %l2 = call i32 @pthread_mutex_lock(ptr @lock)
  %gone = load i64, ptr @left
  %gone.now = add i64 %gone, 1
  store atomic i64 %gone.now, ptr @left seq_cst, align 8
  %g = call i32 @pthread_cond_signal(ptr @done)
  %u2 = call i32 @pthread_mutex_unlock(ptr @lock)
  br label %finished
finished:
  br label %idle
}}

define void @gd_parallel(ptr %f, ptr %t, ptr %s, i64 %n) {{
entry:
  %threads = load atomic i64, ptr @threads seq_cst, align 8
  %several = icmp ugt i64 %threads, 1
  br i1 %several, label %claim, label %alone
claim:
  %pair = cmpxchg ptr @busy, i32 0, i32 1 seq_cst seq_cst
  %free = extractvalue {{ i32, i1 }} %pair, 1
  br i1 %free, label %share, label %alone
alone:
  call void %f(ptr %t, ptr %s, i64 0, i64 %n)
  ret void
share:
  %parts = mul i64 %threads, {SHARES}
  %some = udiv i64 %n, %parts
  %few = call i64 @llvm.umax.i64(i64 %some, i64 1)
  %l = call i32 @pthread_mutex_lock(ptr @lock)
  store ptr %f, ptr @kernel
  store ptr %t, ptr @table
  store ptr %s, ptr @sizes
  store i64 %n, ptr @units
  store i64 %few, ptr @share
  store atomic i64 0, ptr @next seq_cst, align 8
  store i64 0, ptr @joined
  store i64 0, ptr @left
  store i64 1, ptr @open
  %turn = load i64, ptr @turn
  %turned = add i64 %turn, 1
  store atomic i64 %turned, ptr @turn seq_cst, align 8
  %b = call i32 @pthread_cond_broadcast(ptr @wake)
  %u = call i32 @pthread_mutex_unlock(ptr @lock)
  call void @work(ptr %f, ptr %t, ptr %s, i64 %n, i64 %few)
  %l2 = call i32 @pthread_mutex_lock(ptr @lock)
  store i64 0, ptr @open
  %joined = load i64, ptr @joined
  %u1 = call i32 @pthread_mutex_unlock(ptr @lock)
{_look("share", "@left", "ne", "%joined")}
  %l3 = call i32 @pthread_mutex_lock(ptr @lock)
  br label %check
check:
  %left = load i64, ptr @left
  %all = icmp eq i64 %joined, %left
  br i1 %all, label %end, label %wait
wait:
  %w = call i32 @pthread_cond_wait(ptr @done, ptr @lock)
  br label %check
end:
  %u2 = call i32 @pthread_mutex_unlock(ptr @lock)
  store atomic i32 0, ptr @busy seq_cst, align 4
  ret void
}}
"""
