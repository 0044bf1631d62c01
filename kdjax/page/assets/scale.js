'use strict';

// From values to places on a chart, and back to round numbers on its axes.
const scale = (() => {
  function extent(values) {
    const known = values.filter((value) => Number.isFinite(value));
    if (!known.length) return [0, 1];
    const [low, high] = [Math.min(...known), Math.max(...known)];
    return low === high ? [low - 0.5, high + 0.5] : [low, high];
  }

  // The extent with some air at both ends.
  function padded(values, share = 0.06) {
    const [low, high] = extent(values);
    const air = share * (high - low);
    return [low - air, high + air];
  }

  // Multiples of 1, 2 or 5 times a power of ten, about `count` of them.
  function ticks([low, high], count = 5) {
    const raw = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].find((each) => each * power >= raw) * power;
    const found = [];
    for (let i = Math.ceil(low / step); i * step <= high + step / 1e6; i++) {
      found.push(i * step);
    }
    return found;
  }

  // Ticks as text: as many digits as tell them apart, thousands as k.
  function labels(values) {
    const step = values.length > 1 ? values[1] - values[0] : values[0] || 1;
    const digits = Math.max(0, -Math.floor(Math.log10(Math.abs(step)) + 1e-9));
    const top = Math.max(...values.map(Math.abs));
    const [unit, suffix] =
      top >= 1e6 ? [1e6, 'M'] : top >= 1e4 ? [1e3, 'k'] : [1, ''];
    const kept =
      unit === 1
        ? digits
        : Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9));
    return values.map((value) =>
      value === 0 ? '0' : (value / unit).toFixed(kept) + suffix,
    );
  }

  const linear =
    ([low, high], [start, end]) =>
    (value) =>
      start + ((value - low) / (high - low)) * (end - start);

  return {extent, padded, ticks, labels, linear};
})();
