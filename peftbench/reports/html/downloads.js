"use strict";
// What a reader takes along: tables as text, drawings as files.

function save(name, content) {
  const address = URL.createObjectURL(content);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

const fileName = (title) =>
  title.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "") || "peftbench";

/** Buttons that copy a table or save it; lines() gives rows of text, the heads first. */
function tableButtons(title, lines) {
  const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const csv = () => `${lines().map((line) => line.map(quoted).join(",")).join("\n")}\n`;
  const copy = element("button", { type: "button", "aria-label": `copy ${title}` }, "Copy");
  copy.addEventListener("click", async () => {
    const text = lines().map((line) => line.join("\t")).join("\n");
    const done = await navigator.clipboard.writeText(text).then(() => "Copied", () => "Not allowed");
    copy.textContent = done;
    setTimeout(() => (copy.textContent = "Copy"), 1500);
  });
  const file = element(
    "button",
    { type: "button", "aria-label": `download ${title} as CSV`, onclick: () => save(`${fileName(title)}.csv`, new Blob([csv()], { type: "text/csv" })) },
    "CSV"
  );
  return element("span", { class: "take" }, copy, file);
}

/** The text of a drawing that stands alone: the colours and letters of the page are written into it. */
function standalone(drawing) {
  const copy = drawing.cloneNode(true);
  const parts = [drawing, ...drawing.querySelectorAll("*")];
  [copy, ...copy.querySelectorAll("*")].forEach((part, at) => {
    const look = getComputedStyle(parts[at]);
    for (const name of ["fill", "stroke", "font-family", "font-size"])
      part.setAttribute(name, look.getPropertyValue(name));
  });
  copy.querySelectorAll("[aria-label=tip], style").forEach((part) => part.remove());
  const ground = drawn("rect", { width: "100%", height: "100%" });
  ground.setAttribute("fill", getComputedStyle(document.body).backgroundColor);
  copy.prepend(ground);
  copy.setAttribute("xmlns", NS);
  return new XMLSerializer().serializeToString(copy);
}

/** Buttons that save a drawing. */
function pictureButtons(title, drawing) {
  const svg = () => save(`${fileName(title)}.svg`, new Blob([standalone(drawing)], { type: "image/svg+xml" }));
  const png = async () => {
    const image = new Image();
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(standalone(drawing))}`;
    await image.decode();
    const canvas = element("canvas", { width: 2 * drawing.width.baseVal.value, height: 2 * drawing.height.baseVal.value });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((content) => save(`${fileName(title)}.png`, content));
  };
  const button = (name, onclick) =>
    element("button", { type: "button", "aria-label": `download ${title} as ${name}`, onclick }, name);
  return element("span", { class: "take" }, button("SVG", svg), button("PNG", png));
}
