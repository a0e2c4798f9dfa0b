// What a case asks: its numbers and arrays, and the call that they are for.

export function number(text) {
  if (!text.includes("x")) return { nan: NaN, inf: Infinity, "-inf": -Infinity }[text];
  const [, sign, whole, fraction = "", exponent] = /^(-?)0x([01])(?:\.([0-9a-f]+))?p([+-]\d+)$/.exec(text);
  return (sign ? -1 : 1) * parseInt(whole + fraction, 16) * 2 ** (exponent - 4 * fraction.length);
}

const integer = (text) => (Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text));

export function array({ type, shape, data }) {
  if (type === "none") return null;
  const rows = (flat, n) => Array.from({ length: flat.length / n }, (_, k) => flat.slice(k * n, (k + 1) * n));
  const read = { float: number, int: integer, bool: Boolean }[type];
  return shape.reduceRight(rows, data.map((value) => read(value)))[0];
}

const dot = (x, y) => x.reduce((sum, value, k) => sum + value * y[k], 0);
const product = (matrix) => (vector) => matrix.map((row) => dot(row, vector));
const FUNCTIONS = {
  matvec: ({ matrix }) => product(matrix),
  evaluate: ({ matrix, slope, parameters }) => (candidate) => {
    const step = candidate.map((x, k) => x - parameters[k]);
    const kl = dot(step, product(matrix)(step)) / 2;
    return [dot(slope, step) - kl, kl];
  },
};

export const option = ({ type, value = null }) => (type === "float" ? number(value) : value);

export function call(target, names, given, ...before) {
  const pairs = (entries, decode) => Object.fromEntries(Object.entries(entries).map(([k, x]) => [k, decode(x)]));
  const arrays = pairs(given.arguments, array);
  const options = pairs(given.options, option);
  return target(...before, ...names.map((name) => FUNCTIONS[name]?.(arrays) ?? arrays[name]), options);
}
