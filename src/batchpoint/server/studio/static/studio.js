// Pages that show something which goes on are kept up to date by the server: it sends parts of the page anew.
"use strict";

for (const shown of document.querySelectorAll("[data-live]")) {
  const events = new EventSource(shown.dataset.live);
  events.addEventListener("part", (event) => {
    const part = JSON.parse(event.data);
    const element = document.getElementById(part.id);
    // What somebody unfolded or selects stays as it is until he is done.
    if (element && !element.contains(document.activeElement) && !holdsSelection(element)) {
      const open = [...element.querySelectorAll("details")].map((one) => one.open);
      element.innerHTML = part.html;
      element.querySelectorAll("details").forEach((one, at) => { if (at < open.length) one.open = open[at]; });
    }
    // What can be done with a job that has ended is another thing than before.
    const offers = shown.querySelector("[data-offers]")?.dataset.offers;
    for (const form of document.querySelectorAll("[data-action]")) form.hidden = form.dataset.action !== offers;
  });
  events.addEventListener("end", () => events.close());
  window.addEventListener("pagehide", () => events.close());
}

function holdsSelection(element) {
  const selection = document.getSelection();
  return Boolean(selection && !selection.isCollapsed && element.contains(selection.anchorNode));
}
