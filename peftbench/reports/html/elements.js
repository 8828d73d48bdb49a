"use strict";
// Elements and figures as text. Text enters the page as text only: nothing here reads markup.

/** An element with attributes, handlers (on…) and children; strings become text. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

const NS = "http://www.w3.org/2000/svg";

function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const known = (value) => value !== null && value !== undefined;
const group = (number) => number.toLocaleString("en-US");

/** A fraction in percent; undefined stays undefined. */
const percent = (value, digits = 1) => (known(value) ? (100 * value).toFixed(digits) : "–");

/** A difference in points with its sign. */
function points(value) {
  if (!known(value)) return "–";
  const text = (100 * value).toFixed(1);
  return Number(text) > 0 ? `+${text}` : text.replace(/^-0\.0$/, "0.0").replace("-", "−");
}

function seconds(value) {
  if (!known(value)) return "–";
  return value >= 100 ? group(Math.round(value)) : value.toFixed(value >= 10 ? 1 : 2);
}

const mebibytes = (bytes) => (known(bytes) ? group(Math.round(bytes / 2 ** 20)) : "–");

function probability(p) {
  if (!known(p)) return "–";
  return p < 0.001 ? "< 0.001" : p.toFixed(3);
}

/** A plain value, list or node as a person reads it. */
function words(value) {
  if (!known(value)) return "none";
  if (typeof value === "number") return Number.isInteger(value) ? group(value) : String(value);
  if (Array.isArray(value)) return value.map(words).join(", ");
  if (typeof value === "object")
    return Object.entries(value).map(([name, inner]) => `${name} ${words(inner)}`).join(", ");
  return String(value);
}
