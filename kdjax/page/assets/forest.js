'use strict';

// The finding: sentences, and every system's score with its interval against
// the student as it was and the teacher. The band between them is the gap.
(() => {
  const {data, html} = dom;
  const home = dom.byId('finding');
  const TOP = 12;

  const [first, ...others] = data.headline;
  home.append(
    html('p', {class: 'headline'}, first),
    ...others.map((text) => html('p', {}, text)),
    html(
      'dl',
      {class: 'facts'},
      Object.entries(data.facts).map(([name, text]) =>
        html('div', {}, html('dt', {}, name), html('dd', {}, text)),
      ),
    ),
  );

  const metric = dom.metric(data.primary);
  if (!metric) return;
  const has = (each) => each.metrics[metric.name]?.[0] != null;
  const references = data.references.filter(has);
  const sign = metric.lower ? -1 : 1;
  const score = (each) => sign * each.metrics[metric.name][0];
  const settings = data.settings
    .filter(has)
    .sort((a, b) => score(b) - score(a));
  const isTeacher = (each) => each.kind === 'teacher';
  const rows = [
    ...references.filter(isTeacher),
    ...settings,
    ...references.filter((each) => !isTeacher(each)),
  ];
  if (!rows.length) return;

  const domain = scale.padded(rows.flatMap((row) => row.metrics[metric.name]));
  const place = scale.linear(domain, [0, 100]);
  // Of several references, those of the best setting.
  const at = (kind) =>
    references.find(
      (each) => each.kind === kind && each.reference === settings[0]?.reference,
    )?.metrics[metric.name][0];
  const [teacher, before] = [at('teacher'), at('student before')];

  // A box at a share of the track, and as wide as another.
  function box(name, low, high) {
    const element = html('i', {class: name});
    element.style.left = `${Math.min(place(low), place(high))}%`;
    if (high !== low) {
      element.style.width = `${Math.abs(place(high) - place(low))}%`;
    }
    return element;
  }

  function track(interval) {
    const [value, low, high] = interval;
    const parts = [];
    if (teacher !== undefined && before !== undefined) {
      parts.push(box('gap', before, teacher));
    }
    for (const mark of [teacher, before]) {
      if (mark !== undefined) parts.push(box('mark', mark, mark));
    }
    if (low !== null && high !== null) parts.push(box('whisker', low, high));
    parts.push(box('dot', value, value));
    return html('div', {class: 'track', 'aria-hidden': 'true'}, parts);
  }

  function row(each) {
    const interval = each.metrics[metric.name];
    const ours = references.includes(each);
    const kind = ours ? 'reference' : each === settings[0] ? 'best' : '';
    return html(
      'li',
      {
        class: kind,
        'data-setting': ours ? null : each.id,
        hidden: settings.length > TOP && settings.indexOf(each) >= TOP,
      },
      html('span', {class: 'name'}, each.id),
      track(interval),
      html(
        'span',
        {class: 'value'},
        dom.number(interval[0], metric.digits),
        ' ',
        html('small', {}, dom.range(interval, metric.digits)),
      ),
    );
  }

  const marks = scale.ticks(domain, 8);
  const axis = html(
    'div',
    {class: 'track axis'},
    marks.map((value, i) => {
      const tick = box('tick', value, value);
      tick.append(html('span', {}, scale.labels(marks)[i]));
      return tick;
    }),
  );
  const list = html(
    'ol',
    {class: 'forest'},
    rows.map(row),
    html(
      'li',
      {class: 'axis', 'aria-hidden': 'true'},
      html('span'),
      axis,
      html('span', {class: 'value'}, metric.lower ? 'less is better' : ''),
    ),
  );
  home.append(
    html(
      'figure',
      {},
      html(
        'figcaption',
        {},
        html('b', {}, metric.name),
        `, 95% intervals over ${data.over}` +
          (teacher !== undefined && before !== undefined
            ? '; shaded, the gap between undistilled student and teacher'
            : ''),
      ),
      list,
    ),
  );
  if (settings.length > TOP) {
    const more = html(
      'button',
      {
        type: 'button',
        onclick: () => {
          for (const item of list.children) item.hidden = false;
          more.remove();
        },
      },
      `Show all ${settings.length} settings`,
    );
    home.append(more);
  }
})();
