"use strict";
(() => {
  const root = document.documentElement;
  const tip = document.getElementById("tip");
  const sheet = document.getElementById("thumbnails");
  const svgNames = "http:" + "//www.w3.org/2000/svg"; // the name of SVG, not an address that is loaded
  const reach = 28; // pixels from the pointer to a mark

  // Light and dark.
  const theme = document.getElementById("theme");
  const dark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const nameTheme = () => { theme.textContent = dark() ? "Light page" : "Dark page"; };
  theme.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; nameTheme(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
  nameTheme();
  theme.hidden = false;

  // What a mark says, and its thumbnail.
  const words = (mark) => mark.dataset.tip || mark.parentNode.dataset.name;
  const thumbnail = (index) => {
    const size = Number(sheet.dataset.size), columns = Number(sheet.dataset.columns);
    const picture = document.createElementNS(svgNames, "svg");
    picture.setAttribute("viewBox", [index % columns * size, Math.floor(index / columns) * size, size, size].join(" "));
    picture.setAttribute("aria-hidden", "true");
    picture.append(document.createElementNS(svgNames, "use"));
    picture.firstChild.setAttribute("href", "#sprite");
    return picture;
  };
  let marked = null;
  const hide = () => {
    if (marked) marked.classList.remove("at");
    marked = null;
    tip.hidden = true;
  };
  const show = (mark) => {
    if (mark === marked) return;
    hide();
    marked = mark;
    mark.classList.add("at");
    tip.replaceChildren(words(mark));
    if (sheet && mark.dataset.i !== undefined) tip.prepend(thumbnail(Number(mark.dataset.i)));
    tip.hidden = false;
    place(mark);
  };
  const place = (mark) => {
    const at = mark.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(6, at.left + at.width / 2 - own.width / 2), innerWidth - own.width - 6);
    const above = at.top - own.height - 8;
    tip.style.left = left + "px";
    tip.style.top = (above > 4 ? above : at.bottom + 8) + "px";
  };

  // Marks of a chart: the nearest to the pointer, or by Tab and then the arrow keys.
  for (const chart of document.querySelectorAll("svg[data-hover]")) {
    const marks = [...chart.querySelectorAll("[data-tip], .dots use")];
    const title = chart.querySelector("title");
    chart.removeAttribute("aria-labelledby");
    chart.setAttribute("aria-label", title.textContent);
    title.remove(); // browsers would show it beside the tip
    if (!marks.length) continue;
    const shown = () => marks.filter((mark) => !mark.closest(".off"));
    marks[0].setAttribute("tabindex", "0");
    chart.addEventListener("pointermove", (event) => {
      const grid = chart.getScreenCTM().inverse();
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(grid);
      let best = null, least = (reach * grid.a) ** 2;
      for (const mark of shown()) {
        const far = (mark.x.baseVal.value - at.x) ** 2 + (mark.y.baseVal.value - at.y) ** 2;
        if (far < least) [best, least] = [mark, far];
      }
      if (best) show(best); else hide();
    });
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("focusin", (event) => {
      event.target.setAttribute("aria-label", words(event.target));
      show(event.target);
    });
    chart.addEventListener("focusout", hide);
    chart.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!by) return;
      event.preventDefault();
      const among = shown();
      const next = among[(among.indexOf(event.target) + by + among.length) % among.length];
      event.target.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus({ preventScroll: true });
    });
  }
  for (const cell of document.querySelectorAll("td[data-tip]")) {
    cell.removeAttribute("title");
    for (const start of ["pointerenter", "focus"]) cell.addEventListener(start, () => show(cell));
    for (const end of ["pointerleave", "blur"]) cell.addEventListener(end, hide);
  }
  addEventListener("scroll", () => {
    if (marked && marked === document.activeElement) place(marked); else hide(); // a browser scrolls to what has the focus
  }, { passive: true });

  // Names in a legend hide and show their lines.
  for (const key of document.querySelectorAll(".key")) {
    key.addEventListener("click", () => {
      const on = key.getAttribute("aria-pressed") !== "true";
      key.setAttribute("aria-pressed", String(on));
      for (const part of key.closest("figure").querySelectorAll("g[data-line]")) {
        if (part.dataset.line === key.dataset.line) part.classList.toggle("off", !on);
      }
      for (const chart of key.closest("figure").querySelectorAll("svg[data-hover]")) {
        const marks = [...chart.querySelectorAll("[data-tip]")];
        for (const mark of marks) mark.removeAttribute("tabindex");
        const first = marks.find((mark) => !mark.closest(".off"));
        if (first) first.setAttribute("tabindex", "0");
      }
    });
  }

  // Copy a command; where the clipboard is closed to files, select the text.
  for (const button of document.querySelectorAll(".copy")) {
    const code = button.parentNode.querySelector("code");
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  }
  root.dataset.ready = "yes";
})();
