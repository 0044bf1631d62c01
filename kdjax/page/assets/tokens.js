'use strict';

// A text token by token, shaded by how far student and teacher are apart.
const tokens = (() => {
  const {html} = dom;
  // Thousandths of a nat where a darker shade begins: the same in all pages.
  const LEVELS = [10, 30, 100, 300, 1000, 3000];
  const NAMES = {forward_kl: 'forward KL', reverse_kl: 'reverse KL'};

  // What isn't finite stands as null, and is the darkest.
  const level = (value) =>
    value === null
      ? LEVELS.length
      : LEVELS.filter((limit) => value >= limit).length;

  const nats = (value) =>
    value === null ? 'infinite' : `${(value / 1000).toFixed(3)} nats`;

  // Pieces as people read them: a space before, and marks of line breaks.
  // The end of a sequence has no text.
  const END = '∎';
  const SPACE = /^[▁Ġ ](?=.)/;
  const readable = (piece, last) =>
    !piece
      ? last
        ? END
        : '·'
      : piece
          .replace(SPACE, '')
          .replace(/[▁Ġ]/g, ' ')
          .replace(/Ċ|<0x0A>|\n/g, '⏎');

  function mean(values) {
    const known = values?.filter((each) => each !== null) ?? [];
    return known.length ? known.reduce((a, b) => a + b) / known.length : null;
  }

  // Pieces in a group that the arrow keys walk through; `values` may lack.
  function render(pieces, values, kind, label) {
    const spans = pieces.flatMap((piece, i) => {
      const value = values?.[i];
      const apart = SPACE.test(piece) || !piece;
      const gap = i && apart ? [' '] : [];
      return [
        ...gap,
        html(
          'span',
          {
            class: value === undefined ? 'token' : `token l${level(value)}`,
            'data-says':
              value === undefined
                ? null
                : `${piece || 'end'}\n${NAMES[kind]} ${nats(value)}`,
          },
          readable(piece, i === pieces.length - 1),
        ),
      ];
    });
    if (!values?.length) return html('p', {class: 'text'}, spans);
    return html(
      'p',
      {
        class: 'text tokens',
        tabindex: '0',
        role: 'group',
        'aria-label': `${label}: arrow keys read the ${NAMES[kind]} of each token`,
      },
      spans,
    );
  }

  function legend() {
    const limits = ['0', ...LEVELS.map((each) => String(each / 1000))];
    return html(
      'div',
      {
        class: 'scale',
        role: 'img',
        'aria-label': `Shades, in nats from ${limits.join(', ')}`,
      },
      html('span', {}, 'nats'),
      limits.map((limit, i) =>
        html('span', {class: `token l${i}`, 'aria-hidden': 'true'}, limit),
      ),
    );
  }

  function show(span) {
    tip.show(span.dataset.says, () => {
      const {left, top} = span.getBoundingClientRect();
      return [left, top];
    });
  }

  // The token that the arrow keys have reached, in its group.
  function step(group, by) {
    const all = [...group.querySelectorAll('[data-says]')];
    const now = all.findIndex((each) => each.classList.contains('here'));
    const next = Math.min(Math.max(now + by, 0), all.length - 1);
    all[now]?.classList.remove('here');
    all[next]?.classList.add('here');
    if (all[next]) show(all[next]);
  }

  function leave(group) {
    group.querySelector('.here')?.classList.remove('here');
    tip.hide();
  }

  function listen(home) {
    home.addEventListener('pointerover', (event) => {
      const span = event.target.closest('[data-says]');
      if (span) show(span);
      else tip.hide();
    });
    home.addEventListener('pointerleave', tip.hide);
    home.addEventListener('focusin', (event) => {
      if (event.target.matches('.tokens')) step(event.target, 1);
    });
    home.addEventListener('focusout', (event) => {
      if (event.target.matches('.tokens')) leave(event.target);
    });
    home.addEventListener('keydown', (event) => {
      const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (!by || !event.target.matches('.tokens')) return;
      event.preventDefault();
      step(event.target, by);
    });
  }

  return {render, legend, listen, mean, nats, NAMES};
})();
