// Elements, and bringing what is shown to what is to be shown. Nothing that comes from a job is ever
// parsed as HTML: text becomes text nodes, and attributes are set only by name.

const SVG = "http://www.w3.org/2000/svg";

function present(children) {
  return children
    .flat(Infinity)
    .filter((child) => child !== null && child !== undefined && child !== false);
}

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...present(children));
  return element;
}

export function h(tag, attributes, ...children) {
  return build(document.createElement(tag), attributes, children);
}

export function s(tag, attributes, ...children) {
  return build(document.createElementNS(SVG, tag), attributes, children);
}

// What a terminal would obey, or what would turn the order of letters: shown, not done.
const UNSEEN =
  /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

function written(character) {
  if (character === "\r") {
    return "\\r";
  }
  const code = character.charCodeAt(0);
  if (code >= 0xdc80 && code <= 0xdcff) {
    // A byte that is not UTF-8.
    return `\\x${(code - 0xdc00).toString(16)}`;
  }
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`;
}

// Text of several lines, as it may be shown.
export function visible(text) {
  return String(text).replace(UNSEEN, written);
}

// The same in one line.
export function inline(text) {
  return visible(text).replace(/\n/g, "\\n").replace(/\t/g, "\\t");
}

function keyOf(node) {
  return node instanceof Element ? node.getAttribute("data-key") : null;
}

function sameKind(old, fresh) {
  return (
    old.nodeType === fresh.nodeType &&
    old.nodeName === fresh.nodeName &&
    keyOf(old) === keyOf(fresh)
  );
}

function morphAttributes(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && name !== "data-kept") {
      // Whether these are open is for whoever opened them to say.
      if (!(name === "open" && old.nodeName === "DETAILS")) {
        old.removeAttribute(name);
      }
    }
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value) {
      old.setAttribute(name, value);
      if (name === "value" && old.nodeName === "INPUT" && old !== document.activeElement) {
        old.value = value;
      }
    }
  }
  if (old.nodeName === "OPTION" && old.parentNode !== document.activeElement) {
    old.selected = fresh.hasAttribute("selected");
  }
}

// Makes the children of an element equal to others, and keeps every element that can stay: so
// neither focus nor a selection nor the place in a list is lost when something changes elsewhere.
export function morph(parent, children) {
  const fresh = present(children);
  const keyed = new Map();
  const wanted = new Set(fresh.map(keyOf));
  for (const child of [...parent.childNodes]) {
    const key = keyOf(child);
    if (key !== null && wanted.has(key)) {
      keyed.set(key, child);
    } else if (key !== null) {
      // At once: else those behind it would be moved before it, and what is moved loses the focus.
      child.remove();
    }
  }
  let place = parent.firstChild;
  for (const child of fresh.map((each) =>
    each instanceof Node ? each : document.createTextNode(each),
  )) {
    const key = keyOf(child);
    const found = key === null ? place : keyed.get(key);
    if (found && sameKind(found, child)) {
      if (found === place) {
        place = place.nextSibling;
      } else {
        parent.insertBefore(found, place);
      }
      if (child.nodeType !== Node.ELEMENT_NODE) {
        if (found.data !== child.data) {
          found.data = child.data;
        }
      } else if (!found.hasAttribute("data-kept")) {
        morphAttributes(found, child);
        morph(found, [...child.childNodes]);
      }
    } else {
      parent.insertBefore(child, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}
