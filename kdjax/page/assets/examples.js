'use strict';

// Which examples are shown, and in which order. No page in here.
const examples = (() => {
  // One row an example: what run and baseline said, and how they compare.
  function rows(set, view) {
    const metric = set.scores.indexOf(view.score);
    const sign = view.lower ? -1 : 1;
    return set.examples.map((example, i) => {
      const ours = set.responses[view.run]?.[i] ?? null;
      const theirs = set.responses[view.against]?.[i] ?? null;
      const score = ours?.scores[metric] ?? null;
      const other = theirs?.scores[metric] ?? null;
      const gain =
        score === null || other === null ? null : sign * (score - other);
      return {
        example,
        i,
        ours,
        theirs,
        score,
        gain,
        length: ours?.length ?? null,
        divergence: tokens.mean(ours?.[view.kl]),
      };
    });
  }

  function text(set, row) {
    const said = Object.values(set.responses).map(
      (all) => all[row.i]?.text ?? '',
    );
    return [row.example.input, ...row.example.references, ...said]
      .join('\n')
      .toLowerCase();
  }

  const kinds = {
    all: () => true,
    improved: (row) => row.gain > 0,
    worse: (row) => row.gain !== null && row.gain < 0,
    equal: (row) => row.gain === 0,
  };

  function filter(set, found, view) {
    const words = view.search.toLowerCase().trim();
    const [low, high] = [view.from, view.to].map((each) =>
      each === '' || Number.isNaN(Number(each)) ? null : Number(each),
    );
    return found.filter(
      (row) =>
        kinds[view.filter](row) &&
        (low === null || (row.length ?? 0) >= low) &&
        (high === null || (row.length ?? 0) <= high) &&
        (!words || text(set, row).includes(words)),
    );
  }

  const keys = {
    id: (row) => row.i,
    gain: (row) => row.gain,
    score: (row) => row.score,
    divergence: (row) => row.divergence,
    length: (row) => row.length,
  };

  // Missing values last, in either direction; ties by their place.
  function sort(found, by, down) {
    const key = keys[by];
    return [...found].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === null || y === null)
        return (x === null) - (y === null) || a.i - b.i;
      return (down ? y - x : x - y) || a.i - b.i;
    });
  }

  const select = (set, view) =>
    sort(filter(set, rows(set, view), view), view.sort, view.order === 'down');

  return {select, kinds: Object.keys(kinds), keys: Object.keys(keys)};
})();
