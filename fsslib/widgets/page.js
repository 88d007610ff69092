// What both front ends use: it travels before the lines of each, as one module.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// Where an event is, as shares of a node's width and height.
function within(event, node) {
  const area = node.getBoundingClientRect();
  return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.height];
}

// A node of the page; what is a function among its attributes hears the event of that name, and false is left out.
function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(key, value);
    else if (value !== false) node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

