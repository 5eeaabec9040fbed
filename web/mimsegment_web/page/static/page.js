// What only the browser can do: choosing, dropping and sending files, keys, the clipboard.
(function () {
  const trigger = (name, args = []) => window.trame.trigger(name, args);
  const state = () => window.trame.state;
  const AT_ONCE = 6;
  let sending = null;

  function show(values) {
    state().set("upload", { active: false, percent: 0, error: "", ...values });
  }

  async function answer(response) {
    if (response.ok) return response.json();
    if (response.status === 422) throw new Error((await response.json()).error);
    const text = await response.text();
    throw new Error(response.status === 403 ? text : `${text} Choose the files again.`);
  }

  // fetch says the same of a server that is gone and of a file that is.
  async function reason(error) {
    if (error.name === "AbortError") return "";
    if (!(error instanceof TypeError)) return error.message;
    const answers = await fetch(location.href, { method: "HEAD" }).then(() => true, () => false);
    return answers
      ? "A file could not be read; look whether it is still where it was, and choose it again."
      : "The server does not answer; start mimsegment web again.";
  }

  // Several at once, as a study can have a thousand small files.
  async function sendAll(files, id, total, signal) {
    const waiting = [...files];
    let sent = 0;
    let shown = 0;
    async function sendOnes() {
      for (let next = waiting.shift(); next; next = waiting.shift()) {
        const url = `upload/${id}?name=${encodeURIComponent(next.name)}`;
        await answer(await fetch(url, { method: "PUT", signal, body: next.file }));
        sent += next.file.size;
        const percent = Math.round((100 * sent) / Math.max(total, 1));
        if (percent !== shown) show({ active: true, percent: (shown = percent) });
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, sendOnes));
  }

  // files: [{file, name}], name with the folders in it
  async function send(files) {
    if (sending) return;
    const can = state().get("wf").can.open_study;
    if (!can.on) return show({ error: can.why, passing: true });
    if (!files.length) return show({ error: "There is no file in it; choose the folder that holds the images." });
    const total = files.reduce((sum, f) => sum + f.file.size, 0);
    sending = new AbortController();
    const { signal } = sending;
    let id = null;
    show({ active: true });
    try {
      const begun = await fetch("upload/begin", {
        method: "POST", signal, body: JSON.stringify({ files: files.length, bytes: total }),
      });
      id = (await answer(begun)).id;
      await sendAll(files, id, total, signal);
      await answer(await fetch(`upload/${id}/done`, { method: "POST", signal }));
      show({});
    } catch (error) {
      sending.abort(); // what is still on its way
      if (id) fetch(`upload/${id}`, { method: "DELETE" }).catch(() => {});
      show({ error: await reason(error) });
    } finally {
      sending = null;
    }
  }

  // A dropped folder is read entry by entry.
  async function walk(entry, prefix, found) {
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push({ file, name: prefix + entry.name });
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) break;
      for (const child of some) await walk(child, `${prefix}${entry.name}/`, found);
    }
  }

  function listen() {
    const hint = () => document.getElementById("mim-drop");
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      hint()?.classList.add("shown");
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) hint()?.classList.remove("shown");
    });
    document.addEventListener("drop", async (event) => {
      event.preventDefault();
      hint()?.classList.remove("shown");
      const entries = [...event.dataTransfer.items].map((i) => i.webkitGetAsEntry()).filter(Boolean);
      const found = [];
      try {
        for (const entry of entries) await walk(entry, "", found);
      } catch {
        return show({
          error: "What was dropped could not be read; choose it under 1, Study, instead.",
        });
      }
      send(found);
    });
    document.addEventListener("keydown", pageKey);
    document.addEventListener("pointermove", showBrush, true);
    document.addEventListener("click", (event) => {
      for (const menu of document.querySelectorAll("details.menu[open]")) {
        if (!menu.contains(event.target)) menu.open = false;
      }
    });
    document.addEventListener("contextmenu", (event) => {
      if (event.target.closest(".view")) event.preventDefault();
    });
  }

  const PAGE_KEYS = {
    n: () => trigger("next_place"), N: () => trigger("previous_place"),
    o: () => trigger("toggle_overlay"), 3: () => trigger("toggle_3d"),
    f: () => trigger("reset_views"), i: () => trigger("next_image"),
    "?": () => state().set("help", !state().get("help")),
    c: () => trigger("use_tool", ["crosshair"]), w: () => trigger("use_tool", ["window"]),
  };

  function typing(target) {
    return target.matches("input:not([type=range]):not([type=checkbox]), select, textarea");
  }

  // Keys that only look; those that decide work in the list of structures alone.
  function pageKey(event) {
    if (typing(event.target)) return;
    if ((event.ctrlKey || event.metaKey) && /^[zy]$/i.test(event.key) && state().get("review")?.editing) {
      event.preventDefault();
      trigger(event.shiftKey || /y/i.test(event.key) ? "redo_stroke" : "undo_stroke");
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      state().set("help", false);
      for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
    }
    PAGE_KEYS[event.key]?.();
  }

  const LIST_KEYS = {
    a: "accept", r: "reject", e: "edit", u: "undo",
  };

  function listKey(event) {
    if (typing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    const rows = state().get("review").rows;
    const at = rows.findIndex((row) => row.id === state().get("selected"));
    const id = rows[at]?.id;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const next = rows[Math.min(rows.length - 1, Math.max(0, at + (event.key === "ArrowDown" ? 1 : -1)))];
      trigger("select", [next.id]);
      document.querySelector(`[data-test="row-${next.id}"]`)?.scrollIntoView({ block: "nearest" });
    } else if (/^[ar]$/.test(event.key) && state().get("marked").length) {
      decideMarked(LIST_KEYS[event.key]);
    } else if (event.key === "u" && rows[at]?.editing) {
      trigger("undo_stroke"); // and not the whole edit
    } else if (LIST_KEYS[event.key] && id) {
      trigger(LIST_KEYS[event.key], [id]);
    } else if (event.key === "p" || event.key === "x") {
      trigger("use_tool", [event.key === "p" ? "paint" : "erase"]);
    } else if (event.key === "[" || event.key === "]") {
      trigger("change_brush", [event.key === "[" ? -1 : 1]);
    } else {
      return;
    }
    event.stopPropagation();
  }

  function mark(ids) {
    state().set("marked", ids.length > 1 ? ids : []);
  }

  // With Ctrl one more structure, with Shift all up to it, are chosen beside the selected one.
  function pickRow(event, id) {
    const ids = state().get("review").rows.map((row) => row.id);
    const selected = state().get("selected");
    const marked = state().get("marked");
    if (event.shiftKey && selected) {
      const [first, last] = [ids.indexOf(selected), ids.indexOf(id)].sort((a, b) => a - b);
      mark(ids.slice(first, last + 1));
    } else if (event.ctrlKey || event.metaKey) {
      const before = marked.length ? marked : [selected].filter(Boolean);
      mark(before.includes(id) ? before.filter((other) => other !== id) : [...before, id]);
    } else {
      mark([]);
      trigger("select", [id]);
    }
  }

  function decideMarked(verdict) {
    const marked = state().get("marked");
    mark([]);
    trigger(verdict, marked);
  }

  // A button that disappears when it was clicked would take the keyboard with it.
  function keepFocus(event) {
    if (!event.target.closest("input, select, a")) event.target.closest(".list")?.focus();
  }

  function readAlert() {
    document.querySelector(".steps .finding.alert")?.scrollIntoView({ block: "center" });
  }

  function openExport() {
    document.getElementById("mim-export").open = true;
  }

  // The brush's size where it would paint; Slicer's own ring would need a picture from the server.
  function showBrush(event) {
    const view = event.target.closest?.(".view:not(.ThreeD)");
    const free = view && !event.target.closest("input, button");
    const ring = document.getElementById("mim-brush")
      || document.body.appendChild(Object.assign(document.createElement("div"), { id: "mim-brush" }));
    ring.hidden = !(free && /paint|erase/.test(state().get("tool")));
    if (ring.hidden) return;
    const { across } = state().get("slices")[view.dataset.test.replace("view-", "")];
    const size = (state().get("brush") / across) * view.clientWidth;
    Object.assign(ring.style, {
      width: `${size}px`, height: `${size}px`,
      left: `${event.clientX - size / 2}px`, top: `${event.clientY - size / 2}px`,
    });
  }

  function pick(event) {
    const files = [...event.target.files].map((file) => ({ file, name: file.webkitRelativePath || file.name }));
    event.target.value = "";
    send(files);
  }

  window.trame.utils.mim = {
    pick, pickRow, decideMarked, listKey, keepFocus, openExport, readAlert,
    stop: () => sending?.abort(),
    copy: (text) => navigator.clipboard.writeText(text),
  };
  listen();
})();
