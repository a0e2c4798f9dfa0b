// Some operations in JavaScript, in float64: arrays are nested, options come last as one object.

const zip = (f, x, ...others) =>
  Array.isArray(x) ? x.map((value, k) => zip(f, value, ...others.map((y) => y[k]))) : f(x, ...others);
const sum = (x) => x.flat(Infinity).reduce((total, value) => total + value, 0);
const selected = (x, mask) => x.flat().filter((_, k) => mask.flat()[k]);
const clamp = (x, bound) => (bound === null ? x : Math.min(Math.max(x, -bound), bound));

// One pass from right to left over the rows; `step` gives a token's result and what the one before it follows.
function backwards(rewards, mask, start, step) {
  return rewards.map((row, b) => {
    let following = start(b);
    const results = row.map(() => 0);
    for (let t = row.length - 1; t >= 0; t--) [results[t], following] = step(b, t, following, mask[b].indexOf(true, t));
    return results;
  });
}

export function td_errors(rewards, values, mask, bootstrap_value, { gamma }) {
  return backwards(rewards, mask, (b) => bootstrap_value[b], (b, t, next) =>
    mask[b][t] ? [rewards[b][t] + gamma * next - values[b][t], values[b][t]] : [0, next]);
}

export function gae(rewards, values, mask, bootstrap_value, { gamma, lam, masked = "skip" }) {
  const start = (b) => ({ value: bootstrap_value[b], advantage: 0 });
  return backwards(rewards, mask, start, (b, t, next, following) => {
    const active = mask[b][t];
    if (!active && (masked === "skip" || following < 0)) return [0, next];
    const [reward, value] = active ? [rewards[b][t], values[b][t]] : [0, 0];
    const advantage = reward + gamma * next.value - value + gamma * lam * next.advantage;
    return [advantage, { value, advantage }];
  });
}

export function discounted_returns(rewards, mask, bootstrap_value, { gamma }) {
  return backwards(rewards, mask, (b) => bootstrap_value[b], (b, t, next) => {
    const here = mask[b][t] ? rewards[b][t] + gamma * next : next;
    return [here, here];
  });
}

export function whiten(x, mask, { shift_mean = true, ddof = 1, eps = 1e-8 }) {
  const active = selected(x, mask);
  if (active.length <= ddof) return zip(() => 0, x);
  const mean = sum(active) / active.length;
  const variance = sum(active.map((value) => (value - mean) ** 2)) / (active.length - ddof);
  return zip((value) => (value - mean) / Math.sqrt(variance + eps) + (shift_mean ? 0 : mean), x);
}

export function importance_ratio(logprobs, old_logprobs, { log_ratio_clip = 20 }) {
  return zip((x, y) => Math.exp(clamp(x - y, log_ratio_clip)), logprobs, old_logprobs);
}

const ESTIMATORS = {
  k1: (l) => l,
  k2: (l) => l ** 2 / 2,
  k3: (l) => Math.expm1(-l) + l,
  abs: Math.abs,
};
const SLOPES = { k1: () => 1, k2: (l) => l, k3: (l) => -Math.expm1(-l), abs: Math.sign };

export function kl_estimate(logprobs, ref_logprobs, { estimator = "k1", log_ratio_clip = null, value_clip = null }) {
  const estimate = (x, y) => clamp(ESTIMATORS[estimator](clamp(x - y, log_ratio_clip)), value_clip);
  return zip(estimate, logprobs, ref_logprobs);
}

export function aggregate(x, mask, { mode = "token-mean", horizon = null, empty_rows = "count" }) {
  const rows = x.map((row, b) => row.filter((_, t) => mask[b][t]));
  const tokens = rows.flat().length;
  if (tokens === 0) return 0;
  if (mode === "token-mean") return sum(rows) / tokens;
  const counted = empty_rows === "drop" ? rows.filter((row) => row.length).length : rows.length;
  const divisor = {
    "seq-mean-token-sum": () => 1,
    "seq-mean-token-mean": (row) => Math.max(row.length, 1),
    "seq-mean-token-sum-norm": () => horizon ?? x[0].length,
  }[mode];
  return sum(rows.map((row) => sum(row) / divisor(row))) / counted;
}

export function policy_metrics(logprobs, old_logprobs, advantages, mask, { clip_low, clip_high, dual_clip = null }) {
  const [tokens, olds, gains] = [logprobs, old_logprobs, advantages].map((x) => selected(x, mask));
  const ratios = tokens.map((value, k) => Math.exp(value - olds[k]));
  const share = (holds) => ratios.filter(holds).length / Math.max(tokens.length, 1);
  return {
    approx_kl: sum(tokens.map((value, k) => olds[k] - value)) / Math.max(tokens.length, 1),
    clip_fraction: share((r, k) => (gains[k] > 0 && r > 1 + clip_high) || (gains[k] < 0 && r < 1 - clip_low)),
    dual_clip_fraction: share((r, k) => dual_clip !== null && gains[k] < 0 && r > dual_clip),
  };
}

export function group_advantages(scores, group_ids, { scale = "std", ddof = 1, eps = 1e-6 }) {
  return scores.map((score, b) => {
    const group = scores.filter((_, k) => group_ids[k] === group_ids[b]);
    if (group.every((other) => other === score)) return 0;
    const mean = sum(group) / group.length;
    const deviation = Math.sqrt(sum(group.map((x) => (x - mean) ** 2)) / (group.length - ddof));
    return (score - mean) / (scale === "std" ? deviation + eps : 1);
  });
}

export function conjugate_gradient(matvec, b, { max_iters, tol }) {
  const dot = (x, y) => sum(zip((p, q) => p * q, x, y));
  const along = (x, length, direction) => zip((p, q) => p + length * q, x, direction);
  let [solution, residual, direction] = [b.map(() => 0), b, b];
  for (let k = 0; k < max_iters && dot(residual, residual) > tol ** 2; k++) {
    const product = matvec(direction);
    const length = dot(residual, residual) / dot(direction, product);
    const left = along(residual, -length, product);
    solution = along(solution, length, direction);
    direction = along(left, dot(left, left) / dot(residual, residual), direction);
    residual = left;
  }
  return solution;
}

export function backtracking_line_search(evaluate, parameters, full_step, { max_kl, backtrack = 0.5, max_steps = 10 }) {
  for (let j = 0; j < max_steps; j++) {
    const point = zip((x, step) => x + backtrack ** j * step, parameters, full_step);
    const [improvement, kl] = evaluate(point);
    if (improvement > 0 && kl <= max_kl) return point;
  }
  return parameters;
}

export const gradients = {
  kl_estimate(upstream, logprobs, ref_logprobs, { estimator = "k1", log_ratio_clip = null, value_clip = null }) {
    const outside = (x, bound) => bound !== null && Math.abs(x) > bound;
    const slope = (above, x, y) => {
      const l = clamp(x - y, log_ratio_clip);
      const stopped = outside(x - y, log_ratio_clip) || outside(ESTIMATORS[estimator](l), value_clip);
      return stopped ? 0 : above * SLOPES[estimator](l);
    };
    return { logprobs: zip(slope, upstream, logprobs, ref_logprobs) };
  },
};
