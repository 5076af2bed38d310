// What a reload would show, without the reload; and some keys. All pages work without this.
"use strict";

(() => {
  const html = document.documentElement;
  const root = html.dataset.root;
  const ahead = Date.parse(html.dataset.now) - Date.now(); // of this machine's clock, in ms
  html.classList.add("js");

  // ------------------------------------------------------------------------------- moments

  const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

  const whole = (seconds) => {
    const unit = UNITS.find(([size]) => seconds >= size);
    return unit ? `${Math.floor(seconds / unit[0])} ${unit[1]}` : "0 s";
  };

  const ago = (seconds) => {
    if (Math.abs(seconds) < 5) return seconds >= 0 ? "just now" : "now";
    return seconds > 0 ? `${whole(seconds)} ago` : `in ${whole(-seconds)}`;
  };

  const say = (node, text) => {
    if (node.textContent !== text) node.textContent = text;
  };

  const tellTheTime = () => {
    const now = Date.now() + ahead;
    for (const node of document.querySelectorAll("time[data-ago], time[data-so-far]")) {
      const seconds = (now - Date.parse(node.dateTime)) / 1000;
      say(node, "ago" in node.dataset ? ago(seconds) : whole(Math.max(0, seconds)));
    }
  };

  // -------------------------------------------------------------------------- what is live

  // Makes `from` like `to` and touches nothing that is alike already: focus, scroll and what
  // was unfolded stay as they are.
  const morph = (from, to) => {
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && name !== "open") from.removeAttribute(name);
    }
    for (const { name, value } of [...to.attributes]) {
      if (name !== "open" && from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
    const keyed = new Map();
    for (const node of from.children) if (node.dataset.key) keyed.set(node.dataset.key, node);
    let place = from.firstChild;
    for (const wanted of [...to.childNodes]) {
      const key = wanted.dataset?.key;
      let found = key ? keyed.get(key) : place;
      if (found && (found.nodeType !== wanted.nodeType || found.nodeName !== wanted.nodeName ||
          (!key && found.dataset?.key))) found = null;
      if (!found) {
        from.insertBefore(document.importNode(wanted, true), place);
        continue;
      }
      if (found !== place) from.insertBefore(found, place);
      else place = place.nextSibling;
      if (wanted.nodeType !== Node.ELEMENT_NODE) {
        if (found.data !== wanted.data) found.data = wanted.data;
      } else if (!("still" in wanted.dataset)) {
        morph(found, wanted);
      }
    }
    while (place) {
      const next = place.nextSibling;
      place.remove();
      place = next;
    }
  };

  const lives = document.querySelectorAll("[data-live]");
  const feed = document.getElementById("feed");
  const SHORTEST = 1000; // ms between two looks
  const LONGER = 5000; // ms until one that failed is tried again
  let due = false; // something has changed since the last look
  let looking = false;
  let connected = false;

  const isEditing = () => {
    const at = document.activeElement;
    return at instanceof HTMLElement && at.matches("main input:not([type=hidden]), main select");
  };

  // What was well when it was last heard of may be no longer: that is said where all look.
  const STALE = 10000; // ms without a connection
  const stale = document.getElementById("stale");
  let heardAt = Date.now();

  const doubt = () => {
    if (connected || !lives.length) heardAt = Date.now();
    const old = Date.now() - heardAt > STALE;
    html.classList.toggle("is-stale", old);
    if (!stale || stale.hidden === !old) return;
    stale.hidden = !old;
    const then = new Date(heardAt + ahead).toISOString().slice(11, 16);
    say(stale, old ? `batchwatch does not answer; all of this is as of ${then} UTC` : "");
  };

  const show = () => {
    doubt();
    if (!feed) return;
    const [state, words] = !connected ? ["again", "reconnecting"]
      : due && isEditing() ? ["held", "paused while you type"] : ["live", "live"];
    if (feed.dataset.state === state) return;
    feed.dataset.state = state;
    say(feed.querySelector(".word"), words);
  };

  const look = async () => {
    show();
    if (!due || looking || document.hidden || isEditing()) return;
    looking = true;
    due = false;
    const begun = performance.now();
    let pause = SHORTEST;
    try {
      const answer = await fetch(location.href, {
        headers: { "X-Requested-With": "live", Accept: "text/html" },
      });
      if (answer.status === 401 || (answer.redirected && new URL(answer.url).pathname !== location.pathname)) {
        location.reload(); // the session is over
        return;
      }
      const text = await answer.text();
      if (answer.status >= 500) {
        due = true;
        pause = LONGER;
      } else if (isEditing()) {
        due = true;
      } else if (answer.ok) {
        const page = new DOMParser().parseFromString(text, "text/html");
        for (const node of lives) {
          const fresh = page.getElementById(node.id);
          if (fresh) morph(node, fresh);
        }
        tellTheTime();
      }
    } catch {
      due = true;
      pause = LONGER;
    }
    // A page that takes long to make is asked for less often.
    setTimeout(() => {
      looking = false;
      look();
    }, Math.max(pause, 5 * (performance.now() - begun)));
  };

  const listen = () => {
    const source = new EventSource(`${root}/live`);
    source.onopen = () => {
      due = true; // something may have changed since the page was made, and nobody heard it
      connected = true;
      look();
    };
    source.onmessage = () => {
      due = true;
      look();
    };
    source.onerror = () => {
      connected = false;
      show();
      if (source.readyState === EventSource.CLOSED) setTimeout(listen, LONGER); // it was refused
    };
    addEventListener("pagehide", () => source.close(), { once: true });
  };

  if (lives.length) {
    listen();
    addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
    document.addEventListener("visibilitychange", look);
    document.addEventListener("focusout", () => setTimeout(look));
  } else if (feed) {
    say(feed.querySelector(".word"), "nothing here changes");
  }

  // On a narrow window, what is chosen is not left outside of it.
  for (const row of document.querySelectorAll(".side nav, .tabs")) {
    const current = row.querySelector("[aria-current]");
    if (current) row.scrollLeft = current.offsetLeft - row.offsetLeft - (row.clientWidth - current.offsetWidth) / 2;
  }

  setInterval(() => {
    doubt();
    if (!document.hidden) tellTheTime();
  }, 1000);

  // --------------------------------------------------------------------------------- theme

  const turn = () => {
    const dark = html.dataset.theme ? html.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    html.dataset.theme = dark ? "light" : "dark";
    document.cookie = `batchwatch_theme=${html.dataset.theme}; path=${root || "/"}; max-age=31536000; samesite=lax`;
  };
  document.getElementById("theme")?.addEventListener("click", turn);

  // ---------------------------------------------------------------------------------- keys

  const help = document.getElementById("help");
  document.getElementById("help-open")?.addEventListener("click", () => help.showModal());
  let went = 0; // when g was pressed

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help?.open) return;
    if (event.target instanceof Element && event.target.matches("input, select, textarea")) return;
    const target = Date.now() - went < 1500 ? document.querySelector(`nav a[data-key="${CSS.escape(event.key)}"]`) : null;
    went = 0;
    if (target) {
      target.click();
    } else if (event.key === "/") {
      const field = [...document.querySelectorAll("main input[type=search], #find")]
        .find((one) => one.offsetParent !== null);
      field?.focus();
      field?.select();
      event.preventDefault();
    } else if (event.key === "?") {
      help?.showModal();
    } else if (event.key === "t") {
      turn();
    } else if (event.key === "g") {
      went = Date.now();
    }
  });
})();
