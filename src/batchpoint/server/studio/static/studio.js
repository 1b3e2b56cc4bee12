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
    const offers = (shown.querySelector("[data-offers]")?.dataset.offers ?? "").split(" ");
    for (const form of document.querySelectorAll("[data-action]")) form.hidden = !offers.includes(form.dataset.action);
  });
  events.addEventListener("end", () => events.close());
  window.addEventListener("pagehide", () => events.close());
}

function holdsSelection(element) {
  const selection = document.getSelection();
  return Boolean(selection && !selection.isCollapsed && element.contains(selection.anchorNode));
}

// A log is read piece by piece: scrolling fetches the next and lets go of what is far away; lines are text, always.
const MOST_PIECES = 8;
const PIECE = 1 << 16;

for (const log of document.querySelectorAll("[data-log]")) {
  const { start, end, size } = log.dataset;
  const pieces = [{ start: Number(start), end: Number(end), node: new Text(log.textContent) }];
  log.replaceChildren(pieces[0].node); // a browser may have made several of a long text
  let known = Number(size), busy = false, tail = null;

  async function fetched(place) {
    const address = new URL(log.dataset.log, location);
    for (const [name, value] of Object.entries({ ...place, format: "json" })) address.searchParams.set(name, value);
    const answer = await fetch(address);
    return answer.ok ? answer.json() : null;
  }

  async function grow(isUp) {
    if (busy || (isUp ? pieces[0].start === 0 : pieces.at(-1).end >= known)) return;
    busy = true;
    const found = await fetched(isUp ? { until: pieces[0].start } : { start: pieces.at(-1).end }).catch(() => null);
    if (found && found.end > found.start) {
      const piece = { start: found.start, end: found.end, node: new Text(found.text) };
      const below = log.scrollHeight - log.scrollTop;
      known = found.size;
      log.insertBefore(piece.node, isUp ? pieces[0].node : null);
      pieces[isUp ? "unshift" : "push"](piece);
      if (isUp) log.scrollTop = log.scrollHeight - below;
      trim(!isUp);
    }
    busy = false;
    follow();
  }

  function trim(atTop) {
    while (pieces.length > MOST_PIECES) {
      const below = log.scrollHeight - log.scrollTop;
      pieces[atTop ? "shift" : "pop"]().node.remove();
      if (atTop) log.scrollTop = log.scrollHeight - below;
    }
  }

  // New lines are sent while the end of the log is shown, and scrolled to while its last line is.
  function follow() {
    const isShown = pieces.at(-1).end >= known;
    if (!isShown) { tail?.close(); tail = null; }
    if (!isShown || tail || !log.dataset.tail) return;
    const address = new URL(log.dataset.tail, location);
    address.searchParams.set("start", pieces.at(-1).end);
    tail = new EventSource(address);
    tail.addEventListener("lines", (event) => {
      const added = JSON.parse(event.data), last = pieces.at(-1);
      const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
      if (last.node.length < PIECE) { last.node.appendData(added.text); last.end = added.end; }
      else pieces.push({ start: last.end, end: added.end, node: log.appendChild(new Text(added.text)) });
      known = Math.max(known, added.end);
      if (isAtEnd) { trim(true); log.scrollTop = log.scrollHeight; }
    });
    tail.addEventListener("end", () => { tail.close(); delete log.dataset.tail; });
    tail.onerror = () => { tail.close(); tail = null; setTimeout(follow, 2000); };
  }

  log.addEventListener("scroll", () => {
    if (log.scrollTop < 200) grow(true);
    if (log.scrollHeight - log.scrollTop - log.clientHeight < 200) grow(false);
  });
  window.addEventListener("pagehide", () => tail?.close());
  if (!new URL(location).searchParams.has("start")) log.scrollTop = log.scrollHeight;
  follow();
}
