"use strict";
// Asks the server of this page what runs, and loads the page again where there are new results.

{
  const SECONDS = 2;
  const place = document.getElementById("live");

  const made = (tag, ...children) => {
    const one = document.createElement(tag);
    one.append(...children);
    return one;
  };

  const job = (told) => {
    const bar = made("progress");
    bar.value = told.fraction;
    bar.setAttribute("aria-label", told.title);
    return made("li", bar, `${Math.round(100 * told.fraction)} % ${told.title}${told.step}`);
  };

  const show = (told) => {
    const commands = told.commands.flatMap((one) => [
      made("p", made("strong", one.count), ": ", made("code", one.command)),
      made("ul", ...one.jobs.map(job)),
    ]);
    const idle = commands.length ? [] : [made("p", "No command runs on this machine for this folder.")];
    place.replaceChildren(...commands, ...idle, ...(told.failed ? [made("p", told.failed)] : []));
  };

  const ask = async () => {
    try {
      const answer = await fetch("progress.json", { cache: "no-store" });
      const told = await answer.json();
      show(told);
      const typing = document.activeElement?.matches("input, select");
      if (told.state !== place.dataset.state && !typing) location.reload();
    } catch {
      place.replaceChildren(made("p", "The server of this page has stopped; below is its last state."));
    }
    setTimeout(ask, 1000 * SECONDS);
  };
  ask();
}
