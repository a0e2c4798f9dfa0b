// The verdict on a case: what an implementation answers is held against the permitted intervals.
import { array, call, number, option } from "./calls.mjs";

const shapeOf = (x) => (Array.isArray(x) ? [x.length, ...shapeOf(x[0])] : []);

// Returns what is wrong with an answer, and keeps count of the elements that were decided.
function judge(got, { shape, positions, low, high }, what, seen) {
  if (`${shapeOf(got)}` !== `${shape}`) return `${what} has shape [${shapeOf(got)}], expected [${shape}]`;
  const flat = [got].flat(Infinity);
  seen.elements += positions.length;
  for (const [k, at] of positions.entries()) {
    if (low[k] === null) continue;
    seen.decided += 1;
    const [lowest, highest] = [number(low[k]), number(high[k])];
    const inside = typeof flat[at] === "number" && lowest <= flat[at] && flat[at] <= highest;
    if (!inside) return `${what}, element ${at}: got ${flat[at]}, permitted ${lowest} to ${highest}`;
  }
}

function verdict(given, file, operation, gradient) {
  const seen = { calls: 0, elements: 0, decided: 0 };
  let wrong;
  if (given.result) {
    const got = call(operation, file.call, given);
    seen.calls += 1;
    wrong = judge(file.keys.length ? file.keys.map((key) => got[key]) : got, given.result, "result", seen);
  }
  if (given.gradients && gradient) {
    const got = call(gradient, file.call, given, array(given.upstream));
    seen.calls += 1;
    for (const [name, permitted] of Object.entries(given.gradients))
      wrong ??= judge(got[name], permitted, `gradient in ${name}`, seen);
  }
  if (wrong) return ["failed", wrong];
  if (!seen.calls) return ["skipped"];
  return [seen.decided || !seen.elements ? "passed" : "undecided"];
}

export function attempt(...parts) {
  try {
    return verdict(...parts);
  } catch (error) {
    return error.name === "NotImplementedError" ? ["skipped"] : ["failed", `${error}`];
  }
}

// Where a case comes from and how it was called, which is what its verdict is about.
export function told(k, { region, clauses, options }, why) {
  const shown = (x) => (typeof x === "number" ? x : JSON.stringify(x));
  const given = Object.entries(options).map(([name, x]) => `${name}=${shown(option(x))}`);
  const called = given.length ? `options ${given.join(", ")}` : "no options";
  return `\n  case ${k}, region ${region}, ${clauses.join(", ")}\n  ${called}\n  ${why}`;
}
