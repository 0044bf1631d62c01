'use strict';

// The keyboard: letters move between samples, ? tells which.
(() => {
  const {html} = dom;
  const dialog = dom.byId('keys');
  const KEYS = [
    ['j, k', 'next and previous sample'],
    ['↓, ↑', 'the same, once a sample has the focus'],
    ['←, →', 'along the tokens of a text, or the points of a curve'],
    ['/', 'search the samples'],
    ['?', 'this help'],
    ['Esc', 'close it; leave the search'],
    ['Tab', 'through everything'],
  ];
  dialog.append(
    html('h2', {id: 'keys-title'}, 'Keys'),
    html(
      'dl',
      {},
      KEYS.map(([key, text]) =>
        html(
          'div',
          {},
          html('dt', {}, html('kbd', {}, key)),
          html('dd', {}, text),
        ),
      ),
    ),
    html('form', {method: 'dialog'}, html('button', {}, 'Close')),
  );
  dom.byId('help').addEventListener('click', () => dialog.showModal());
  document.querySelector('[data-skip]').addEventListener('click', (event) => {
    event.preventDefault();
    dom.byId('samples').focus();
  });

  const typing = (target) => target.closest('input, select, textarea, dialog');

  document.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const {key, target} = event;
    if (key === 'Escape' && target === browser?.search) return target.blur();
    if (typing(target)) return undefined;
    const inside = target.closest('.example');
    const by = {j: 1, k: -1, ...(inside && {ArrowDown: 1, ArrowUp: -1})}[key];
    const action = by
      ? () => browser?.move(by)
      : {'/': () => browser?.search.focus(), '?': () => dialog.showModal()}[
          key
        ];
    if (!action) return undefined;
    event.preventDefault();
    return action();
  });
})();
