// Undo and redo of everything people do here. A step is {what, redo, undo}: words, and two functions that may take time;
// `look` where only this page looks another way: such steps in a row are one; `joins`, the words of both as one, where it
// belongs to the `joinable` step before.
import { announce } from "./dom.js";
import { tell } from "./state.js";
import { t } from "./strings.js";
import { fail } from "./notice.js";

const done = [];
const undone = [];
let turn = Promise.resolve(); // one step after the other, however fast they are asked for

const inTurn = (work) => (turn = turn.then(work, work));

/** Do a step, and remember it. Resolves to whether it was done; what went wrong is told over the photo. */
export const run = (step) =>
  inTurn(async () => {
    if (await attempt(step.redo)) return false;
    const last = done.at(-1);
    if (step.look && last?.look) done[done.length - 1] = joined(last, step, last.look === step.look ? step : { what: t("step.looks"), look: "several" });
    else if (step.joins && last?.joinable) done[done.length - 1] = joined(last, step, { what: step.joins });
    else done.push(step);
    undone.length = 0;
    announce(step.what);
    tell("history");
    return true;
  });

/** Two steps in a row as one. */
const joined = (one, other, { what, look }) => ({
  what, look,
  redo: async () => (await one.redo(), await other.redo()),
  undo: async () => (await other.undo(), await one.undo()),
});

/** Remember a step that was done already. */
export function remember(step) {
  done.push(step);
  undone.length = 0;
  tell("history");
}

export const undo = () => move(done, undone, "undo");
export const redo = () => move(undone, done, "redo");

/** The words of what undo and redo would do; undefined: nothing. */
export const next = () => ({ undo: done.at(-1)?.what, redo: undone.at(-1)?.what });

/** Whether the last step is one that another may be joined to. */
export const joinable = () => Boolean(done.at(-1)?.joinable);

/** Forget all: another model's ids are others. */
export function forget() {
  done.length = undone.length = 0;
  tell("history");
}

const move = (from, to, how) =>
  inTurn(async () => {
    const step = from.at(-1);
    if (!step) return;
    const error = await attempt(step[how]);
    if (error && !error.outdated) return; // it can be tried again
    from.pop(); // what somebody else has changed since is theirs
    if (!error) {
      to.push(step);
      announce(t(`history.${how}`, { what: step.what }));
    }
    tell("history");
  });

/** Do it; what went wrong is told, and returned. */
async function attempt(work) {
  try {
    await work();
    return null;
  } catch (error) {
    fail(error);
    return error;
  }
}
