// Streets drawn by a program: something to try the page with where no photo is at hand. The same name, the same street.

const WIDTH = 640, HEIGHT = 480;
const VANISHING = [0.5 * WIDTH, 0.47 * HEIGHT];
const DARK = "rgb(58 66 76)";

/** What differs from street to street. walls: colors; tall: how high houses begin above the picture; cars: [side, distance, color]. */
const STREETS = {
  street: { seed: 1, sky: ["#bad0ec", "#f0f3f7"], walls: ["#96705c", "#b2a086", "#807a78", "#a68468"], trees: [0.3, 0.55], cars: [[1, 0.5, "#841e22"], [-1, 0.42, "#34425c"], [1, 0.25, "#aaacb0"]] },
  avenue: { seed: 2, sky: ["#9dc0ea", "#e8f0f8"], walls: ["#c0b49c", "#a89a88", "#b8a894", "#98908a"], trees: [0.12, 0.34, 0.52, 0.66], cars: [[-1, 0.5, "#d8d8d4"]] },
  parked: { seed: 3, sky: ["#c8d2de", "#f2f4f6"], walls: ["#8c5a4a", "#7e6a60", "#9c6e58", "#86604e"], trees: [0.6], cars: [[-1, 0.62, "#2e3a30"], [1, 0.6, "#b8b0a0"], [-1, 0.46, "#8a8e94"], [1, 0.42, "#27324a"], [-1, 0.24, "#6e1c20"], [1, 0.16, "#c4c6c8"]] },
  evening: { seed: 4, sky: ["#8a92b0", "#f0d8c0"], walls: ["#6e5a56", "#7c6c64", "#625c60", "#74625a"], trees: [0.3, 0.5], cars: [[1, 0.45, "#40444c"]], shade: 0.72 },
};

export const names = Object.keys(STREETS);

/** The street of a name as a canvas of 640×480. */
export function street(name) {
  const { seed, sky, walls, trees, cars, shade = 1 } = STREETS[name];
  const random = randomOf(seed);
  const canvas = new OffscreenCanvas(WIDTH, HEIGHT), pen = canvas.getContext("2d");
  above(pen, sky, random);
  for (const side of [-1, 1]) houses(pen, side, walls, random);
  ground(pen);
  for (const distance of [...trees].sort((a, b) => b - a)) for (const side of [-1, 1]) tree(pen, side, distance, random);
  for (const [side, distance, color] of [...cars].sort((a, b) => b[1] - a[1])) car(pen, side, distance, color);
  grain(pen, random, shade);
  return canvas;
}

/** The same numbers for the same seed, 0..1. Source: mulberry32, T. Ettinger, public domain. */
function randomOf(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The point `distance` (0 here .. 1 infinitely far) of the way from (x, y) to the vanishing point. */
const towards = (x, y, distance) => [x + (VANISHING[0] - x) * distance, y + (VANISHING[1] - y) * distance];

function shape(pen, color, points) {
  pen.fillStyle = color;
  pen.beginPath();
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.fill();
}

function above(pen, [high, low], random) {
  const sky = pen.createLinearGradient(0, 0, 0, HEIGHT * 0.6);
  sky.addColorStop(0, high);
  sky.addColorStop(1, low);
  pen.fillStyle = sky;
  pen.fillRect(0, 0, WIDTH, HEIGHT);
  for (let cloud = 0; cloud < 14; cloud++) {
    const [x, y, r] = [random() * WIDTH, random() * HEIGHT * 0.4, 40 + random() * 70];
    const soft = pen.createRadialGradient(x, y, 0, x, y, r);
    soft.addColorStop(0, "rgb(255 255 255 / .35)");
    soft.addColorStop(1, "rgb(255 255 255 / 0)");
    pen.fillStyle = soft;
    pen.fillRect(x - r, y - r, 2 * r, 2 * r);
  }
}

/** A rectangle of the wall at x, from one height and distance to another. */
const front = (pen, x, [top, bottom], [near, far], color) =>
  shape(pen, color, [[top, near], [top, far], [bottom, far], [bottom, near]].map(([y, distance]) => towards(x, y, distance)));

function houses(pen, side, walls, random) {
  const edge = WIDTH * (0.5 + side * 0.75), bottom = HEIGHT * 1.02;
  const fronts = [0.05, 0.2425, 0.435, 0.6275, 0.82];
  for (let house = 3; house >= 0; house--) {
    const [near, far] = [fronts[house], fronts[house + 1]], top = HEIGHT * (-0.35 + 0.3 * random());
    front(pen, edge, [top, bottom], [near, far], walls[(house + (side > 0 ? 1 : 0)) % walls.length]);
    for (const storey of [0.12, 0.32, 0.52, 0.72]) {
      for (const along of [0.12, 0.31, 0.5, 0.69, 0.88]) {
        const y = top + (bottom - top) * storey, across = [-0.05, 0.05].map((half) => near + (far - near) * (along + half));
        front(pen, edge, [y, y + (bottom - top) * 0.12], across, DARK);
      }
    }
  }
}

function ground(pen) {
  for (const [left, color] of [[-0.45, "#9e968e"], [-0.05, "#c4c0ba"], [-0.02, "#5c5c60"]]) { // pavement, curb, road
    shape(pen, color, [VANISHING, [left * WIDTH, HEIGHT], [(1 - left) * WIDTH, HEIGHT]]);
  }
  for (const start of [0, 0.3, 0.52, 0.68, 0.8]) {
    const stop = start + 0.1925 * (1 - start);
    const dash = [[0.492, start], [0.508, start], [0.508, stop], [0.492, stop]];
    shape(pen, "#d6d4cc", dash.map(([x, distance]) => towards(x * WIDTH, HEIGHT, distance)));
  }
}

function tree(pen, side, distance, random) {
  const [x, foot] = towards(WIDTH * (0.5 + side * 0.72), HEIGHT, distance), tall = HEIGHT * 0.95 * (1 - distance);
  pen.fillStyle = "#483a2e";
  pen.fillRect(x - tall * 0.025, foot - tall * 0.55, tall * 0.05, tall * 0.55);
  for (let leaf = 0; leaf < 260; leaf++) {
    const angle = random() * 2 * Math.PI, reach = Math.sqrt(random()) * 0.3 * tall, light = 0.6 + 0.55 * random();
    pen.fillStyle = `rgb(${58 * light} ${86 * light} ${44 * light})`;
    pen.beginPath();
    pen.arc(x + reach * Math.cos(angle), foot - tall * 0.78 + reach * Math.sin(angle), tall * (0.02 + 0.04 * random()), 0, 7);
    pen.fill();
  }
}

function car(pen, side, distance, color) {
  const [x, foot] = towards(WIDTH * (0.5 + side * 0.42), HEIGHT, distance), wide = WIDTH * 0.3 * (1 - distance), tall = 0.72 * wide;
  const at = (u, v) => [x + wide * u, foot - tall * v];
  const box = (fill, left, top, right, bottom, round) => {
    const [x0, y0] = at(left, top), [x1, y1] = at(right, bottom);
    pen.fillStyle = fill;
    pen.beginPath();
    pen.roundRect(x0, y0, x1 - x0, y1 - y0, round);
    pen.fill();
  };
  box("#303032", -0.52, 0.12, 0.52, -0.06, wide); // its shadow
  for (const wheel of [-0.36, 0.36]) box("#1c1c1e", wheel - 0.09, 0.3, wheel + 0.09, -0.02, wide * 0.03);
  box(color, -0.5, 0.62, 0.5, 0.14, wide * 0.08);
  shape(pen, color, [at(-0.4, 0.6), at(-0.3, 1), at(0.3, 1), at(0.4, 0.6)]);
  shape(pen, "#424e58", [at(-0.33, 0.63), at(-0.26, 0.94), at(0.26, 0.94), at(0.33, 0.63)]);
  for (const lamp of [-0.42, 0.42]) box("#c43c30", lamp - 0.06, 0.5, lamp + 0.06, 0.38, wide);
}

/** What no camera is without; a bright sky has less of it. */
function grain(pen, random, shade) {
  const picture = pen.getImageData(0, 0, WIDTH, HEIGHT), { data } = picture;
  for (let y = 0, at = 0; y < HEIGHT; y++) {
    for (let x = 0; x < WIDTH; x++, at += 4) {
      const bright = Math.max(data[at], data[at + 1], data[at + 2]);
      const rough = Math.min(1, Math.max(0.1, (235 - bright) / 60)) * 14 * (random() + random() - 1);
      for (let band = 0; band < 3; band++) data[at + band] = data[at + band] * shade + rough;
    }
  }
  pen.putImageData(picture, 0, 0);
}
