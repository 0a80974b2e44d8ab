// Elements, made of text only: nothing that a canary, a hook or a proxy says becomes markup.

export const byId = (id) => document.getElementById(id);

const fill = (made, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== undefined && child !== null));
  return made;
};

/** Returns an element of HTML. */
export const h = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);

/** Returns an element of SVG. */
export const s = (name, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

/** Writes a text, if it is another one: a reader of the screen is told of every change. */
export const write = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};

const shown = new WeakMap();

/** Fills an element anew if what it is made of has changed: focus and selection stay where nothing did. */
export const renew = (element, data, make) => {
  const key = JSON.stringify(data);
  if (shown.get(element) === key) return false;
  shown.set(element, key);
  // A table that somebody scrolls, or has come to by Tab, stays where it is.
  const frames = [...element.querySelectorAll(".scroll")];
  const kept = frames.map((frame) => [frame.scrollLeft, frame === document.activeElement]);
  element.replaceChildren(...[make(data)].flat().filter((child) => child !== undefined && child !== null));
  [...element.querySelectorAll(".scroll")].forEach((frame, place) => {
    const [left, hasFocus] = kept[place] ?? [0, false];
    frame.scrollLeft = left;
    if (hasFocus) frame.focus({ preventScroll: true });
  });
  return true;
};

/** Returns a table with a caption, of numbers or of "words", in a frame that scrolls on a narrow screen, also by keys. */
export const table = (caption, heads, rows, kind) =>
  h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", { class: kind },
      h("caption", {}, caption),
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, rows.map(([head, ...cells]) =>
        h("tr", {}, h("th", { scope: "row" }, head), cells.map((cell) => h("td", {}, cell)))))));
