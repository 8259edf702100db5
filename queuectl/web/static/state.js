// What all views know: who is signed in, and how the queue is.

export const known = {
  session: null, // what `GET /session` told
  changed: null, // the data of the last event `changed`
};

export function mayChange() {
  return known.session !== null && known.session.scope === "write" && !known.session.read_only;
}

// How many jobs there are in each state, over all queues.
export function counts() {
  const sum = {};
  for (const queue of Object.values(known.changed?.stats.queues ?? {})) {
    for (const [state, count] of Object.entries(queue)) {
      sum[state] = (sum[state] ?? 0) + count;
    }
  }
  return sum;
}

export function queueNames() {
  return Object.keys(known.changed?.stats.queues ?? {}).sort();
}
