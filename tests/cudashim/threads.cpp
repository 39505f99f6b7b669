// Runs the threads of a block as fibers, in the order that is asked for.

#include "cudashim.h"

#include <cstdlib>
#include <cstring>
#include <utility>

extern "C" {
shim_three shim_thread, shim_block, shim_block_size, shim_grid_size;
}

namespace {

enum State { READY, AT_BLOCK, AT_WARP, DONE };
enum { MOST = 1024, STACK = 64 << 10 };

#ifdef __x86_64__
// What is kept while another fiber runs is a stack pointer; all else is on the stack.  The C
// library's own way asks the system for its signal mask each time, which takes ten times longer.
extern "C" void shim_switch(void **kept, void *other);
asm(R"(
  .text
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
typedef void *Context;
void swap(Context &from, Context &to) { shim_switch(&from, to); }
void prepare(Context &context, char *stack, void (*begin)()) {
  void **top = (void **)(stack + STACK);  // where `begin` finds its stack, as after a call
  top[-2] = (void *)begin;
  context = top - 8;
}
#else
#include <ucontext.h>
typedef ucontext_t Context;
void swap(Context &from, Context &to) { swapcontext(&from, &to); }
void prepare(Context &context, char *stack, void (*begin)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = STACK;
  context.uc_link = nullptr;
  makecontext(&context, begin, 0);
}
#endif

struct Fiber {
  Context context;
  char *stack;
  State state;
  unsigned exchanges;
};

Fiber fibers[MOST];
Context scheduler;
unsigned current, count;
unsigned order[MOST], turn;  // who runs when, and whose turn it is
shim_three places[MOST];     // of threads in their block
unsigned begins[MOST / 32], waiting[MOST / 32];  // of a warp: its first turn, how many wait
unsigned long long slots[2][MOST];
void (*kernel)(void **);
void **arguments;

void enter(unsigned i) {
  current = i;
  shim_thread = places[i];
}

// The next thread that can go on, of those whose turn is still to come; null if there is none.
Fiber *next() {
  while (turn < count) {
    const unsigned i = order[turn++];
    if (fibers[i].state != READY) continue;
    enter(i);
    return &fibers[i];
  }
  return nullptr;
}

// Lets a warp go on whose threads all wait for each other.  It goes on at once: its fibers' stacks
// are still near the processor.
void release(unsigned warp) {
  const unsigned first = warp * 32;
  for (unsigned i = first; i < first + 32 && i < count; i++) fibers[i].state = READY;
  waiting[warp] = 0;
  turn = begins[warp];
}

// From fiber to fiber: processors foresee where a switch leads that is made in one place.
void wait(State state) {
  Fiber &here = fibers[current];
  here.state = state;
  const unsigned warp = current / 32, left = count - warp * 32;
  if (state == AT_WARP && ++waiting[warp] == (left < 32 ? left : 32)) release(warp);
  Fiber *other = next();
  swap(here.context, other ? other->context : scheduler);
}

void run() {
  kernel(arguments);
  wait(DONE);
}

void start(unsigned i) {
  Fiber &f = fibers[i];
  if (!f.stack) f.stack = (char *)malloc(STACK);
  f.state = READY;
  f.exchanges = 0;
  prepare(f.context, f.stack, run);
}

int run_block() {
  for (unsigned i = 0; i < count; i++) start(i);
  for (;;) {
    turn = 0;
    if (Fiber *first = next()) {
      swap(scheduler, first->context);
      continue;
    }
    unsigned done = 0;
    for (unsigned i = 0; i < count; i++) {
      if (fibers[i].state == AT_WARP) return 2;
      done += fibers[i].state == DONE;
    }
    if (done == count) return 0;
    if (done) return 1;  // some threads have left without the others
    for (unsigned i = 0; i < count; i++) fibers[i].state = READY;
  }
}

}  // namespace

extern "C" {

void shim_wait_for_block() { wait(AT_BLOCK); }
void shim_wait_for_warp() { wait(AT_WARP); }
unsigned shim_lane() { return current % 32; }

unsigned long long shim_exchange(unsigned long long bits, unsigned lane) {
  // no thread is more than one exchange ahead of another of its warp
  unsigned long long *here = slots[fibers[current].exchanges++ % 2];
  here[current] = bits;
  wait(AT_WARP);
  return here[current / 32 * 32 + lane];
}

// Runs a kernel; 0, or what is wrong: 1 and 2 for barriers that not all threads reach (of a block,
// of a warp), 3 for a block of a size that there is not.
//
// which   the order of threads: 0 forwards, 1 backwards, else a shuffle
// meets   whether threads wait for each other; if not they need no fibers
int shim_launch(void (*f)(void **), void **given, const unsigned *grid, const unsigned *block,
                char *shared, unsigned long shared_bytes, unsigned which, int meets) {
  kernel = f;
  arguments = given;
  shim_grid_size = {grid[0], grid[1], grid[2]};
  shim_block_size = {block[0], block[1], block[2]};
  count = block[0] * block[1] * block[2];
  if (count == 0 || count > MOST) return 3;
  for (unsigned i = 0; i < count; i++) {
    order[i] = which == 1 ? count - 1 - i : i;
    places[i] = {i % block[0], i / block[0] % block[1], i / (block[0] * block[1])};
  }
  unsigned long long seed = which;
  for (unsigned i = count - 1; which > 1 && i > 0; i--) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    std::swap(order[i], order[(seed >> 33) % (i + 1)]);
  }
  memset(waiting, 0, sizeof waiting);
  for (unsigned k = count; k-- > 0;) begins[order[k] / 32] = k;
  for (unsigned z = 0; z < grid[2]; z++)
    for (unsigned y = 0; y < grid[1]; y++)
      for (unsigned x = 0; x < grid[0]; x++) {
        shim_block = {x, y, z};
        memset(shared, 0xff, shared_bytes);
        if (meets) {
          if (const int wrong = run_block()) return wrong;
          continue;
        }
        for (unsigned k = 0; k < count; k++) {
          enter(order[k]);
          f(given);
        }
      }
  return 0;
}
}
