// Pages that show something which goes on are kept up to date by the server: it sends parts of the page anew.
"use strict";

for (const shown of document.querySelectorAll("[data-live]")) {
  const newest = new Map(); // the parts that came and are not shown yet
  let events = null;

  function show() {
    for (const [id, html] of newest) {
      const element = document.getElementById(id);
      // What somebody unfolded or selects stays as it is until he is done.
      if (!element || element.contains(document.activeElement) || holdsSelection(element)) continue;
      const open = [...element.querySelectorAll("details")].map((one) => one.open);
      element.innerHTML = html;
      element.querySelectorAll("details").forEach((one, at) => { if (at < open.length) one.open = open[at]; });
      newest.delete(id);
    }
  }

  function listen() {
    events = new EventSource(shown.dataset.live);
    events.addEventListener("part", (event) => {
      const part = JSON.parse(event.data);
      newest.set(part.id, part.html);
      offer(part.html);
      show();
    });
    events.addEventListener("end", () => { events.close(); delete shown.dataset.live; });
    events.onopen = () => tellLive(true);
    events.onerror = () => tellLive(false);
  }

  document.addEventListener("selectionchange", show);
  document.addEventListener("focusout", () => setTimeout(show));
  whileVisible(() => { if (shown.dataset.live) listen(); }, () => events?.close());
}

// What can be done with a job that has ended is another thing than before.
function offer(html) {
  const part = document.createElement("template");
  part.innerHTML = html;
  const offers = part.content.querySelector("[data-offers]")?.dataset.offers.split(" ");
  if (!offers) return;
  for (const form of document.querySelectorAll("[data-action]")) form.hidden = !offers.includes(form.dataset.action);
}

function holdsSelection(element) {
  const selection = document.getSelection();
  return Boolean(selection && !selection.isCollapsed && element.contains(selection.anchorNode));
}

// A browser opens six connections to a server: those of pages that nobody looks at would leave none for others.
let staleSince = document.hidden ? new Date() : null;

function whileVisible(begin, end) {
  if (!document.hidden) begin();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) staleSince ??= new Date();
    if (document.hidden) end(); else begin();
  });
  window.addEventListener("pagehide", end);
}

function tellLive(isLive) {
  const told = document.getElementById("stale");
  if (isLive) { told?.remove(); staleSince = null; }
  if (isLive || told) return;
  staleSince ??= new Date();
  const line = Object.assign(document.createElement("p"), { id: "stale", className: "notice", role: "status" });
  const reload = Object.assign(document.createElement("a"), { href: location.pathname + location.search });
  reload.textContent = "Reload";
  line.append(`No longer live, as of ${staleSince.toISOString().slice(0, 19).replace("T", " ")} UTC. `, reload, ".");
  document.getElementById("main").prepend(line);
}

// A log is read piece by piece: scrolling fetches the next and lets go of what is far away; lines are text, always.
const MOST_PIECES = 8;
const PIECE = 1 << 16;

for (const log of document.querySelectorAll("[data-log]")) {
  const { start, end, size } = log.dataset;
  const pieces = [{ start: Number(start), end: Number(end), node: new Text(log.textContent) }];
  log.replaceChildren(pieces[0].node); // a browser may have made several of a long text
  const toEnd = document.querySelector("[data-to-end]");
  let known = Number(size), busy = false, tail = null;

  async function fetched(place) {
    const address = new URL(log.dataset.log, location);
    for (const [name, value] of Object.entries({ ...place, format: "json" })) address.searchParams.set(name, value);
    const answer = await fetch(address);
    if (answer.status === 401 || answer.status === 403) tellLive(false);
    return answer.ok ? answer.json() : null;
  }

  async function grow(isUp) {
    if (busy || (isUp ? pieces[0].start === 0 : pieces.at(-1).end >= known)) return;
    busy = true;
    const found = await fetched(isUp ? { until: pieces[0].start } : { start: pieces.at(-1).end }).catch(() => null);
    if (found) known = found.size;
    if (found && found.end > found.start) {
      const piece = { start: found.start, end: found.end, node: new Text(found.text) };
      const below = log.scrollHeight - log.scrollTop;
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
    if (toEnd) toEnd.hidden = isShown;
    if (!isShown || !log.dataset.tail || document.hidden) return stop();
    if (tail) return;
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
      // Whoever reads further up is not led away from there: what comes now is fetched when he comes down.
      else if (pieces.length > MOST_PIECES) { known = pieces.at(-1).end + 1; follow(); }
    });
    tail.addEventListener("end", () => { stop(); delete log.dataset.tail; });
    tail.onopen = () => tellLive(true);
    tail.onerror = () => {
      const isOver = tail.readyState === EventSource.CLOSED;
      stop(); // by itself it would begin with lines that are there already
      tellLive(false);
      if (!isOver) setTimeout(follow, 2000);
    };
  }

  function stop() {
    tail?.close();
    tail = null;
  }

  log.addEventListener("scroll", () => {
    if (log.scrollTop < 200) grow(true);
    if (log.scrollHeight - log.scrollTop - log.clientHeight < 200) grow(false);
  });
  if (!new URL(location).searchParams.has("start")) log.scrollTop = log.scrollHeight;
  whileVisible(follow, stop);
}
