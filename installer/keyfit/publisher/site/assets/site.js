// Comforts of the download site. Every page works without them. Device names are hostile: they are cleaned, cut and set
// as text, and addresses are made only from digits that were checked and names that the site's own index holds.
"use strict";

const root = document.body.dataset.root;
const MAX_DEVICE_TEXT = 126; // longest USB string in UTF-16 units: bLength is one byte, (255 - 2) / 2 (USB 2.0, 9.6.7)
const SMART_CARD = 0x0b; // USB class code of smart-card devices

let index = null;
const loadIndex = async () => {
  if (index === null) {
    const answer = await fetch(`${root}ids.json`);
    if (!answer.ok) throw new Error(String(answer.status));
    index = await answer.json();
  }
  return index;
};

const hex = (number) => number.toString(16).padStart(4, "0");
const shown = (slug) => slug.toUpperCase().replace("-", ":");
const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? values[name] : whole));
const clean = (text) => String(text ?? "").normalize("NFC").replace(/\p{C}/gu, "").replace(/\s+/g, " ").trim().slice(0, MAX_DEVICE_TEXT);

const say = (place, text, bad = false) => {
  place.textContent = text;
  place.classList.toggle("bad", bad);
};

// The number within what a person types or pastes: 096E:0807, VID_096E&PID_0807, 0x096e 0x0807, 096e0807 ...
// Returns "096e-0807", "096e" for a vendor alone, or "".
const numberIn = (typed) => {
  const text = typed.trim().toLowerCase();
  const named = /vid_([0-9a-f]{4}).*pid_([0-9a-f]{4})/.exec(text);
  if (named) return `${named[1]}-${named[2]}`;
  const plain = /^(?:id\s+)?(?:0x)?([0-9a-f]{4})(?:[\s:.,;/_-]*(?:0x)?([0-9a-f]{4}))?h?$/.exec(text);
  return plain ? (plain[2] ? `${plain[1]}-${plain[2]}` : plain[1]) : "";
};

const startNumberForm = (form) => {
  const input = form.querySelector("input");
  const answer = form.querySelector(".answer");
  const rows = [...document.querySelectorAll("#number-list tbody tr")];
  const narrow = () => {
    const number = numberIn(input.value);
    const begun = number || input.value.trim().toLowerCase().replace(/^0x/, "").replace(/[\s:]+/g, "-");
    let left = 0;
    for (const row of rows) {
      const fits = row.id.slice(2).startsWith(begun);
      row.hidden = !fits;
      left += fits ? 1 : 0;
    }
    if (left === 0) for (const row of rows) row.hidden = false; // an empty table would help nobody
  };
  form.hidden = false;
  input.addEventListener("input", () => { say(answer, ""); narrow(); });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const typed = clean(input.value);
    const number = numberIn(typed);
    if (!number) { say(answer, fill(form.dataset.nonsense, { typed }), true); input.focus(); return; }
    try {
      const { ids } = await loadIndex();
      const known = [number, number.slice(0, 4)].find((slug) => Object.hasOwn(ids, slug));
      if (known) location.assign(`${form.dataset.folder}id/${known}.html`);
      else say(answer, fill(form.dataset.unknown, { typed: shown(number) }), true);
    } catch {
      say(answer, fill(form.dataset.failed, { typed: shown(number) }), true);
    }
  });
};

const startFilter = (form) => {
  const input = form.querySelector("input");
  const answer = form.querySelector(".answer");
  const rows = [...document.querySelectorAll(`#${form.dataset.filter} > li`)];
  const words = rows.map((row) => row.dataset.words.toLowerCase());
  const narrow = () => {
    const asked = clean(input.value).toLowerCase().split(" ").filter(Boolean);
    let left = 0;
    rows.forEach((row, place) => {
      const fits = asked.every((word) => words[place].includes(word));
      row.hidden = !fits;
      left += fits ? 1 : 0;
    });
    if (!asked.length) say(answer, "");
    else if (left) say(answer, fill(form.dataset.count, { count: left }));
    else say(answer, fill(form.dataset.none, { typed: clean(input.value) }), true);
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", narrow);
  narrow();
};

const isCard = (device) => device.deviceClass === SMART_CARD || (device.configurations ?? []).some((configuration) =>
  configuration.interfaces.some((one) => one.alternates.some((alternate) => alternate.interfaceClass === SMART_CARD)));

const startPlugged = (panel) => {
  if (!navigator.usb) return;
  const button = panel.querySelector("button");
  const answer = panel.querySelector(".answer");
  const { folder } = panel.dataset;
  const open = (address) => {
    const link = document.createElement("a");
    link.href = address;
    link.textContent = panel.dataset.open;
    answer.append(" ", link);
    link.focus();
  };
  const tell = ({ ids, classes }, device) => {
    const number = `${hex(device.vendorId)}-${hex(device.productId)}`;
    const name = clean(device.productName) || panel.dataset.nameless;
    const values = { name, number: shown(number) };
    const known = [number, number.slice(0, 4)].find((slug) => Object.hasOwn(ids, slug));
    const cards = classes["0b"] ?? [];
    if (known) {
      say(answer, fill(panel.dataset.found, values));
      open(`${folder}id/${known}.html`);
      location.assign(`${folder}id/${known}.html`);
    } else if (isCard(device) && cards.length) {
      say(answer, fill(panel.dataset.card, values));
      open(`${folder}brand/${cards[0]}.html`);
    } else {
      say(answer, fill(panel.dataset.unknown, values), true);
    }
  };
  panel.hidden = false;
  loadIndex().catch(() => {}); // before the button is pressed: the browser asks only right after a press
  button.addEventListener("click", async () => {
    say(answer, "");
    try {
      const loaded = await loadIndex();
      const vendors = [...new Set(Object.keys(loaded.ids).map((slug) => parseInt(slug.slice(0, 4), 16)))];
      const filters = [...vendors.map((vendorId) => ({ vendorId })),
        ...Object.keys(loaded.classes).map((code) => ({ classCode: parseInt(code, 16) }))];
      tell(loaded, await navigator.usb.requestDevice({ filters }));
    } catch (error) {
      say(answer, error.name === "NotFoundError" ? panel.dataset.cancelled : panel.dataset.failed, true);
    }
  });
};

// The first page: marks the language that the browser asks for first. It leads nowhere by itself.
const suggestLanguage = (list) => {
  const links = [...list.querySelectorAll("a[data-tag]")];
  const base = (tag) => tag.toLowerCase().split("-")[0];
  for (const wanted of navigator.languages ?? [navigator.language]) {
    const link = links.find((one) => base(one.dataset.tag) === base(wanted));
    if (link) {
      link.parentElement.classList.add("suggested");
      link.parentElement.querySelector("[data-hint]").hidden = false;
      return;
    }
  }
};

document.querySelectorAll("[data-number-form]").forEach(startNumberForm);
document.querySelectorAll("[data-filter]").forEach(startFilter);
document.querySelectorAll("[data-plugged]").forEach(startPlugged);
document.querySelectorAll("[data-languages]").forEach(suggestLanguage);
