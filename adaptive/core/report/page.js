// Shows the text of a place in a figure under the mouse, on a tap and for the keyboard. Without
// scripts the places keep their <title>, which browsers show by themselves.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  document.body.append(tip);
  for (const title of document.querySelectorAll(".spots title")) {
    const place = title.parentNode;
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", title.textContent);
    title.remove();
  }
  const placeOf = (target) => (target.closest ? target.closest(".spots > *") : null);
  const hide = () => { tip.hidden = true; };
  const show = (place) => {
    tip.textContent = place.getAttribute("aria-label");
    tip.hidden = false;
    const at = place.getBoundingClientRect(), page = document.documentElement;
    const middle = at.left + at.width / 2 - tip.offsetWidth / 2;
    const left = Math.max(8, Math.min(middle, page.clientWidth - tip.offsetWidth - 8));
    const above = at.top - tip.offsetHeight - 6;
    const below = Math.min(at.bottom + 6, page.clientHeight - tip.offsetHeight - 8);
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 0 ? above : Math.max(0, below)}px`;
  };
  document.addEventListener("pointerover", (event) => {
    const place = placeOf(event.target);
    if (place) show(place); else hide();
  });
  document.addEventListener("focusin", (event) => {
    const place = placeOf(event.target);
    if (place) show(place);
  });
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", () => {  // a place with the focus takes its text along
    const place = placeOf(document.activeElement);
    if (place && !tip.hidden) show(place); else hide();
  }, true);
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const place = placeOf(event.target), step = steps[event.key];
    if (!place || !step) return;
    event.preventDefault();
    const all = [...place.parentNode.children];
    all[(all.indexOf(place) + step + all.length) % all.length].focus({ preventScroll: true });
  });
})();
