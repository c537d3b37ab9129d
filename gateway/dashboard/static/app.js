// What pages do besides being read. Everything works without it, but for live figures and previews.
"use strict";

const root = document.documentElement;
root.classList.remove("no-script");

const remember = (name, value) => {
  document.cookie = `${name}=${encodeURIComponent(value)}; path=/; max-age=31536000; samesite=lax`;
};

// The viewer's time zone: the server writes times and cuts days in it.
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  if (root.dataset.zone === zone) return;
  remember("uf_timezone", zone);
  const tried = sessionStorage.getItem("uf_zone_tried");
  if (root.dataset.zone && document.body.dataset.method === "GET" && tried !== zone) {
    sessionStorage.setItem("uf_zone_tried", zone);
    location.reload();
  }
})();

const on = (kind, selector, act) =>
  document.addEventListener(kind, (event) => {
    const target = event.target instanceof Element && event.target.closest(selector);
    if (target) act(target, event);
  });

on("click", "[data-theme-button]", () => {
  const dark = getComputedStyle(root).colorScheme === "dark" ||
    (!root.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  root.dataset.theme = dark ? "light" : "dark";
  remember("uf_theme", root.dataset.theme);
});

on("click", "[data-menu-button]", (button) => {
  const side = button.closest(".side");
  side.toggleAttribute("data-open");
  button.setAttribute("aria-expanded", side.hasAttribute("data-open"));
});

on("click", "[data-copy]", async (button) => {
  await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
  const label = button.querySelector("span");
  const before = label.textContent;
  label.textContent = "Copied";
  setTimeout(() => { label.textContent = before; }, 1500);
});

// One confirmation at a time; Escape and a click elsewhere close it.
const closeConfirmations = (except) => {
  for (const each of document.querySelectorAll("details.confirm[open]")) {
    if (each !== except) each.open = false;
  }
};
document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : root;
  const inside = target.closest("details.confirm");
  closeConfirmations(inside);
  if (target.closest("[data-close]") && inside) {
    event.preventDefault();
    inside.open = false;
    inside.querySelector("summary").focus();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeConfirmations(null);
});

// What is sent twice by a double click is sent once.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  setTimeout(() => {
    for (const button of form.querySelectorAll("button:not([type=button])")) button.disabled = true;
  });
});
addEventListener("pageshow", () => {
  for (const button of document.querySelectorAll("form button[disabled]")) button.disabled = false;
});
on("change", "[data-submits]", (input) => input.form.requestSubmit());

// Charts: what a bar stands for, by mouse and by keyboard.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);
const showTip = (bar) => {
  tip.textContent = bar.dataset.tip;
  tip.hidden = false;
  const box = bar.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const left = box.left + box.width / 2 - size.width / 2;
  tip.style.left = `${Math.max(8, Math.min(left, innerWidth - size.width - 8))}px`;
  tip.style.top = `${Math.max(8, box.top - size.height - 6)}px`;
};
on("pointerover", "[data-tip]", showTip);
on("focusin", "[data-tip]", showTip);
const hideTip = () => { tip.hidden = true; };
on("pointerout", "[data-tip]", hideTip);
on("focusout", "[data-tip]", hideTip);
addEventListener("scroll", hideTip, { passive: true });
on("keydown", ".bar", (bar, event) => {
  const step = { ArrowRight: "nextElementSibling", ArrowLeft: "previousElementSibling" }[event.key];
  const next = step && bar[step];
  if (!next || !next.matches(".bar")) return;
  event.preventDefault();
  bar.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
});

// Rows of a form: numbered anew when one is added or taken away.
const renumber = (list) => {
  const base = list.dataset.rows;
  [...list.children].forEach((row, index) => {
    for (const part of row.querySelectorAll("[name], [id], [for], [aria-describedby], [data-rows]")) {
      for (const name of ["name", "id", "for", "aria-describedby", "data-rows"]) {
        const text = part.getAttribute(name);
        if (text && text.startsWith(`${base}[`)) {
          const end = text.indexOf("]", base.length);
          part.setAttribute(name, `${base}[${index}]${text.slice(end + 1)}`);
        }
      }
    }
  });
};
on("click", "[data-add]", (button, event) => {
  event.preventDefault();
  const list = button.closest("[data-group]").querySelector("[data-rows]");
  const row = list.lastElementChild.cloneNode(true);
  for (const input of row.querySelectorAll("input, textarea")) {
    // What is only for the preview has a value from the beginning.
    input.value = input.name.includes("._") ? input.defaultValue : "";
    input.removeAttribute("aria-invalid");
  }
  for (const problem of row.querySelectorAll(".problem")) problem.remove();
  for (const inner of row.querySelectorAll("[data-rows]")) {
    while (inner.children.length > Number(inner.dataset.least || 1)) inner.lastElementChild.remove();
  }
  list.append(row);
  renumber(list);
  row.querySelector("input, select").focus();
});
on("click", "[data-remove]", (button, event) => {
  event.preventDefault();
  const row = button.closest("[data-row]");
  const list = row.parentElement;
  if (list.children.length > 1) row.remove();
  else for (const input of row.querySelectorAll("input")) input.value = "";
  renumber(list);
  list.dispatchEvent(new Event("input", { bubbles: true }));
});

// A preview is made by the server from the form as it stands.
const replaceBy = (target, html) => {
  const parsed = new DOMParser().parseFromString(html, "text/html");
  target.replaceChildren(...parsed.body.childNodes);
};
for (const target of document.querySelectorAll("[data-preview]")) {
  const form = document.getElementById(target.dataset.form);
  let timer = 0;
  let asked = 0;
  const ask = async () => {
    const mine = ++asked;
    target.setAttribute("aria-busy", "true");
    try {
      const answer = await fetch(target.dataset.preview, {
        method: "POST", body: new URLSearchParams(new FormData(form)),
      });
      const html = await answer.text();
      if (mine === asked && answer.ok) replaceBy(target, html);
    } catch { /* the next change asks again */ }
    if (mine === asked) target.removeAttribute("aria-busy");
  };
  const soon = () => { clearTimeout(timer); timer = setTimeout(ask, 250); };
  form.addEventListener("input", soon);
  form.addEventListener("change", soon);
  soon();
}

// Live figures: the server sends them by name.
for (const source of document.querySelectorAll("[data-live]")) {
  const stream = new EventSource(source.dataset.live);
  stream.addEventListener("figures", (event) => {
    for (const [name, text] of Object.entries(JSON.parse(event.data))) {
      for (const place of document.querySelectorAll(`[data-figure="${CSS.escape(name)}"]`)) {
        if (place.textContent !== text) place.textContent = text;
      }
    }
  });
  addEventListener("pagehide", () => stream.close());
}

// What goes on in the background: a part is asked for again until it says that it is done.
// Not while somebody is in it by keyboard, and not when nothing has changed: what was unfolded stays so.
const REFRESH_MS = 2000;
const REFRESHES_MAX = 300;
const refresh = async (part, known, left) => {
  try {
    const answer = document.hidden ? null : await fetch(location.href);
    const page = answer && answer.ok && new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page && page.getElementById(part.id);
    if (next && next.outerHTML !== known && !part.contains(document.activeElement)) {
      known = next.outerHTML;
      part.replaceWith(next);
      part = next;
    }
  } catch { /* asked again below */ }
  if (part.dataset.refresh !== undefined && left > 0) {
    setTimeout(refresh, REFRESH_MS, part, known, left - 1);
  }
};
for (const part of document.querySelectorAll("[data-refresh]")) {
  setTimeout(refresh, REFRESH_MS, part, part.outerHTML, REFRESHES_MAX);
}
