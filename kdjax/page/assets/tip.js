'use strict';

// The one little box that says a number, beside the pointer or the focus.
const tip = (() => {
  const box = dom.byId('tip');
  let where = null;

  // Says a text above the place [left, top] that `at` returns.
  function show(text, at) {
    box.textContent = text;
    box.hidden = false;
    where = at;
    place();
  }

  function place() {
    const [left, top] = where();
    const {width, height} = box.getBoundingClientRect();
    const right = document.documentElement.clientWidth - width - 8;
    box.style.left = `${Math.max(8, Math.min(left + 12, right))}px`;
    box.style.top = `${top - height - 10 > 0 ? top - height - 10 : top + 22}px`;
  }

  function hide() {
    box.hidden = true;
  }

  // What gets the focus may have to scroll into view first.
  addEventListener('scroll', () => box.hidden || place(), {passive: true});
  return {show, hide};
})();

// A setting that is pointed at, or focused, stands out wherever it is drawn.
const light = (() => {
  let now = null;

  function set(id) {
    if (id === now) return;
    now = id;
    document.body.classList.toggle('lighting', id !== null);
    for (const each of document.querySelectorAll('[data-setting]')) {
      each.classList.toggle('lit', each.dataset.setting === id);
    }
  }

  const of = (event) => event.target.closest?.('[data-setting]');
  for (const name of ['pointerover', 'focusin']) {
    document.addEventListener(name, (event) => {
      if (event.target.closest?.('svg')) return;
      set(of(event)?.dataset.setting ?? null);
    });
  }
  return {set};
})();
