// Has the buttons wait for half a second from when the page comes to be seen. A page of somebody else can lay a window of its own over
// this one and take it away between the two clicks of a double click: the second would be a yes that nobody has read the question of.
// Without scripts the buttons work at once.
"use strict";

const WAIT = 500; // milliseconds; the clicks of a double click are less apart
const buttons = document.querySelectorAll("form.ways button");
let waiting;

function wait() {
  clearTimeout(waiting);
  for (const button of buttons) button.disabled = true;
  waiting = setTimeout(() => {
    for (const button of buttons) button.disabled = false;
  }, WAIT);
}

addEventListener("focus", wait);
addEventListener("pageshow", wait);
document.addEventListener("visibilitychange", wait);
wait();
