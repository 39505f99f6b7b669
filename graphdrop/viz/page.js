"use strict";
// Hovering over a box shows its type and origin, and fades what is not connected to it.
const svg = document.querySelector("svg"), tip = document.getElementById("tip");
const boxes = [...svg.querySelectorAll(".box")], arrows = [...svg.querySelectorAll(".arrow")];
const texts = new Map();
for (const box of boxes) {  // our own hover text replaces the browser's
  const title = box.querySelector("title");
  texts.set(box, title.textContent);
  title.remove();
}
function leave() {
  tip.style.display = "none";
  svg.classList.remove("faded");
  for (const near of svg.querySelectorAll(".near")) near.classList.remove("near");
}
function enter(box) {
  leave();
  tip.textContent = texts.get(box);
  tip.style.display = "block";
  svg.classList.add("faded");
  box.classList.add("near");
  const id = box.dataset.box;
  for (const arrow of arrows) {
    const { from, to } = arrow.dataset;
    if (from !== id && to !== id) continue;
    arrow.classList.add("near");
    boxes[from].classList.add("near");
    boxes[to].classList.add("near");
  }
}
for (const box of boxes) {
  box.addEventListener("mouseenter", () => enter(box));
  box.addEventListener("mouseleave", leave);
}
svg.addEventListener("mousemove", (event) => {
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.max(0, Math.min(event.clientX + 14, innerWidth - width - 8)) + "px";
  tip.style.top = Math.max(0, Math.min(event.clientY + 14, innerHeight - height - 8)) + "px";
});
