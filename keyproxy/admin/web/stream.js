// The events of the process, read by fetch: an EventSource cannot show a token.

const TOKEN = "keyproxy-token";

export const token = {
  get: () => sessionStorage.getItem(TOKEN),
  set: (value) => sessionStorage.setItem(TOKEN, value),
  drop: () => sessionStorage.removeItem(TOKEN),
};

const headers = () => (token.get() ? { Authorization: `Bearer ${token.get()}` } : {});

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(path, options = {}) {
  const answer = await fetch(path, { headers: headers(), cache: "no-store", ...options });
  if (!answer.ok) {
    const said = await answer.json().catch(() => null);
    throw new Refused(answer.status, said?.error?.message ?? `The answer was ${answer.status}.`);
  }
  return answer;
}

/** Calls back with each event's name and data, until the stream ends. */
async function follow(onEvent, signal) {
  const answer = await ask("events", { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const name = /^event: (.*)$/m.exec(block)?.[1];
      const data = /^data: (.*)$/m.exec(block)?.[1];
      if (name && data) onEvent(name, JSON.parse(data));
    }
  }
}

/** Keeps following, with longer and longer pauses; a refusal ends it. */
export async function keepFollowing(onEvent, onState) {
  let pause = 1;
  for (;;) {
    try {
      await follow((name, data) => {
        pause = 1;
        onState("live");
        onEvent(name, data);
      });
    } catch (error) {
      if (error instanceof Refused && error.status !== 503) throw error;
    }
    onState("lost");
    await new Promise((wake) => setTimeout(wake, pause * 1000));
    pause = Math.min(15, pause * 2);
  }
}
