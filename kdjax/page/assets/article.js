'use strict';

// One example: its prompt, the gold response, and what everybody said.
const article = (() => {
  const {html} = dom;

  function foot(response, now, set) {
    const mean = tokens.mean(response[now.kl]);
    const parts = set.scores.map((name, i) =>
      response.scores[i] === null
        ? null
        : html(
            'span',
            {class: name === now.score ? 'main' : null},
            `${name.replaceAll('_', ' ')} ${+response.scores[i].toFixed(1)}`,
          ),
    );
    if (response.length !== null) {
      parts.push(html('span', {}, `${response.length} tokens`));
    }
    if (mean !== null) {
      parts.push(html('span', {}, `mean ${tokens.nats(mean)}`));
    }
    if (!response.ended) parts.push(html('span', {class: 'main'}, 'cut off'));
    return html('p', {class: 'foot'}, parts.filter(Boolean));
  }

  const plain = (text) => html('p', {class: 'text'}, text);

  // A name, what it said, and its numbers: three rows, the same in all columns.
  const column = (name, body, below) =>
    html(
      'div',
      {class: 'said'},
      html('h4', {}, name),
      html('div', {}, body),
      below ?? '',
    );

  function said(name, response, now, set) {
    if (!response) return column(name, [plain('no response')]);
    const {text, tokens: pieces} = response;
    const body = pieces
      ? tokens.render(pieces, response[now.kl], now.kl, name)
      : plain(text);
    return column(name, [body], foot(response, now, set));
  }

  // The gold response, shaded by the run that is shown.
  function gold(row, now) {
    const {references, tokens: pieces} = row.example;
    const values = row.ours?.gold?.[now.kl];
    const [first, ...others] = references;
    const body = [
      pieces
        ? tokens.render(pieces, values, now.kl, 'gold')
        : plain(first ?? ''),
    ];
    if (others.length) {
      const summary = html('summary', {}, `${others.length} more`);
      body.push(html('details', {}, summary, others.map(plain)));
    }
    const mean = tokens.mean(values);
    const words =
      mean === null ? '' : `mean ${tokens.nats(mean)}, of ${now.run}`;
    return column('gold', body, html('p', {class: 'foot'}, words));
  }

  function render(row, now, set) {
    const shown = ['teacher', 'student before', now.against, now.run].filter(
      (each, i, all) => set.responses[each] && all.indexOf(each) === i,
    );
    const gain =
      row.gain === null
        ? null
        : html(
            'span',
            {
              class: `gain ${row.gain > 0 ? 'up' : row.gain < 0 ? 'down' : ''}`,
            },
            row.gain === 0
              ? 'equal'
              : `${row.gain > 0 ? '▲ better' : '▼ worse'} by ` +
                  `${+Math.abs(row.gain).toFixed(1)}`,
          );
    return html(
      'article',
      {
        class: 'example',
        tabindex: '-1',
        'aria-label': `Example ${row.example.id}`,
      },
      html('header', {}, html('h3', {}, `#${row.example.id}`), gain),
      html('p', {class: 'prompt'}, row.example.input),
      html(
        'div',
        {class: 'columns'},
        gold(row, now),
        shown.map((name) => said(name, set.responses[name][row.i], now, set)),
      ),
    );
  }

  return {render};
})();
