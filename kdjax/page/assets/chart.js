'use strict';

// A line chart in SVG: series with bands, a reference line, and a cursor that
// follows pointer and arrow keys.
const chart = (() => {
  const {html, svg} = dom;
  const HEIGHT = 260;
  const TICKS = 7;
  const MARGIN = {right: 12, top: 12, bottom: 34};

  // A path through the points whose both numbers are known.
  function path(points) {
    const known = points.filter(
      ([x, y]) => Number.isFinite(x) && Number.isFinite(y),
    );
    return known
      .map(([x, y], i) => `${i ? 'L' : 'M'}${x.toFixed(1)},${y.toFixed(1)}`)
      .join('');
  }

  function axes(frame, x, y, domain, label) {
    const [left, right, top, bottom] = frame;
    const xs = scale.ticks(domain.x, (right - left) / 90);
    const ys = scale.ticks(domain.y, TICKS);
    const [xText, yText] = [scale.labels(xs), scale.labels(ys)];
    return svg(
      'g',
      {class: 'axes'},
      ys
        .map((value, i) => [
          svg('line', {x1: left, x2: right, y1: y(value), y2: y(value)}),
          svg(
            'text',
            {
              x: left - 7,
              y: y(value),
              'text-anchor': 'end',
              'dominant-baseline': 'middle',
            },
            yText[i],
          ),
        ])
        .flat(),
      xs.map((value, i) =>
        svg(
          'text',
          {x: x(value), y: bottom + 16, 'text-anchor': 'middle'},
          xText[i],
        ),
      ),
      svg(
        'text',
        {x: right, y: bottom + 30, 'text-anchor': 'end', class: 'label'},
        label,
      ),
    );
  }

  function line(series, x, y) {
    const points = (values) =>
      values.map((each, i) => [x(series.x[i]), y(each)]);
    const parts = [];
    if (series.low) {
      const shape = path([
        ...points(series.low),
        ...points(series.high).reverse(),
      ]);
      parts.push(svg('path', {class: 'band', d: shape}));
    }
    parts.push(svg('path', {class: 'line', d: path(points(series.y))}));
    if (series.y.length < 30) {
      const dots = points(series.y).filter((each) =>
        each.every(Number.isFinite),
      );
      parts.push(
        ...dots.map(([cx, cy]) =>
          svg('circle', {class: 'point', cx, cy, r: 2}),
        ),
      );
    }
    return svg(
      'g',
      {class: `series ${series.kind ?? ''}`, 'data-setting': series.id},
      parts,
    );
  }

  // The series and the index of its point that are nearest to a place.
  function nearest(all, x, y, [left, top]) {
    let found = null;
    for (const series of all) {
      series.x.forEach((each, i) => {
        if (!Number.isFinite(series.y[i])) return;
        const distance = Math.hypot(x(each) - left, y(series.y[i]) - top);
        if (!found || distance < found.distance) found = {series, i, distance};
      });
    }
    return found;
  }

  // Where an arrow key leads: along a curve, or to the next one.
  function step(all, shown, key) {
    const along = {ArrowLeft: -1, ArrowRight: 1}[key];
    const over = {ArrowUp: -1, ArrowDown: 1}[key];
    if (!along && !over) return null;
    if (!shown) return next(all[0], 0, 1);
    if (along) return next(shown.series, shown.i + along, along) ?? shown;
    const other = all[all.indexOf(shown.series) + over];
    return (other && next(other, shown.i, -1)) ?? shown;
  }

  // The next point from i on whose value is known.
  function next(series, i, by) {
    const last = series.y.length - 1;
    let now = Math.min(i, by > 0 ? i : last);
    while (now >= 0 && now <= last && !Number.isFinite(series.y[now]))
      now += by;
    return now >= 0 && now <= last ? {series, i: now} : null;
  }

  // Draws into `home`.
  //   series: {id, label, x, y, low?, high?, kind?} each
  //   options: label of the x axis, title, rules [{label, value}]
  function draw(home, series, options) {
    const width = Math.max(280, home.clientWidth);
    const values = series.flatMap((each) => [
      ...each.y,
      ...(each.low ?? []),
      ...(each.high ?? []),
    ]);
    const domain = {
      x: scale.extent(series.flatMap((each) => each.x)),
      y: scale.padded([...values, ...options.rules.map((each) => each.value)]),
    };
    // As much room as the longest label takes.
    const texts = scale.labels(scale.ticks(domain.y, TICKS));
    const frame = [
      14 + 7 * Math.max(...texts.map((each) => each.length)),
      width - MARGIN.right,
      MARGIN.top,
      HEIGHT - MARGIN.bottom,
    ];
    const [left, right, top, bottom] = frame;
    const x = scale.linear(domain.x, [left, right]);
    const y = scale.linear(domain.y, [bottom, top]);
    const cursor = svg('g', {class: 'cursor'});
    const ordered = [...series].reverse(); // the first one lies on top
    const picture = svg(
      'svg',
      {
        viewBox: `0 0 ${width} ${HEIGHT}`,
        width,
        height: HEIGHT,
        role: 'img',
        tabindex: '0',
        'aria-label':
          `${options.title} against ${options.label}, ` +
          `${series.length} curve${series.length > 1 ? 's' : ''}; the arrow keys ` +
          'read the points',
      },
      axes(frame, x, y, domain, options.label),
      options.rules.map((rule) =>
        svg(
          'g',
          {class: 'rule'},
          svg('line', {
            x1: left,
            x2: right,
            y1: y(rule.value),
            y2: y(rule.value),
          }),
          svg(
            'text',
            {x: right, y: y(rule.value) - 5, 'text-anchor': 'end'},
            rule.label,
          ),
        ),
      ),
      ordered.map((each) => line(each, x, y)),
      cursor,
    );

    let shown = null;
    function show(found) {
      shown = found;
      if (!found) return hide();
      const {series: of, i} = found;
      const place = [x(of.x[i]), y(of.y[i])];
      cursor.replaceChildren(svg('circle', {cx: place[0], cy: place[1], r: 4}));
      const value = +of.y[i].toPrecision(4);
      const at = scale.labels([of.x[i]])[0];
      tip.show(
        `${of.label}\n${options.title} ${value} at ${at} ${options.label}`,
        () => {
          const box = picture.getBoundingClientRect();
          const ratio = box.width / width;
          return [box.left + place[0] * ratio, box.top + place[1] * ratio];
        },
      );
      light.set(of.id);
    }
    function hide() {
      cursor.replaceChildren();
      tip.hide();
      light.set(null);
    }
    picture.addEventListener('pointermove', (event) => {
      const box = picture.getBoundingClientRect();
      const ratio = width / box.width;
      show(
        nearest(series, x, y, [
          (event.clientX - box.left) * ratio,
          (event.clientY - box.top) * ratio,
        ]),
      );
    });
    picture.addEventListener('pointerleave', () => show(null));
    picture.addEventListener('blur', () => show(null));
    picture.addEventListener('keydown', (event) => {
      const found = step(series, shown, event.key);
      if (!found) return;
      event.preventDefault();
      show(found);
    });
    home.replaceChildren(
      series.length
        ? picture
        : html('p', {class: 'empty'}, 'Nothing to draw yet.'),
    );
  }

  return {draw};
})();
