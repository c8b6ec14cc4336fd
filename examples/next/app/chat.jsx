"use client";

import OpenAI from "openai";
import { useRef, useState } from "react";

// Made at the first question: a page that is rendered on the server has no location.
let llm;
const client = () =>
  (llm ??= new OpenAI({
    baseURL: `${location.origin}/api/v1`, apiKey: "none", dangerouslyAllowBrowser: true,
  }));

export function Chat({ model }) {
  const [turns, setTurns] = useState([]); // { role, content }: what the model gets to see
  const [problem, setProblem] = useState("");
  const stream = useRef(null);
  const [isAnswering, setAnswering] = useState(false);

  async function ask(event) {
    event.preventDefault();
    const form = event.currentTarget;
    const asked = [...turns, { role: "user", content: new FormData(form).get("question") }];
    form.reset();
    setTurns(asked);
    setProblem("");
    setAnswering(true);
    let content = "";
    try {
      stream.current = await client().chat.completions.create({
        model, messages: asked, stream: true,
      });
      for await (const chunk of stream.current) {
        content += chunk.choices[0]?.delta?.content ?? "";
        setTurns([...asked, { role: "assistant", content }]);
      }
    } catch (error) {
      // error.headers.get("x-keyproxy-code") names a refusal; examples/web/errors.js has words.
      setProblem(error.message);
    }
    stream.current = null;
    setAnswering(false);
  }

  return (
    <main>
      {turns.map(({ role, content }, at) => (
        <p key={at} className={role}>{content}</p>
      ))}
      {problem && <p role="alert">{problem}</p>}
      <form onSubmit={ask}>
        <input name="question" aria-label="Question" required autoFocus />
        <button disabled={isAnswering}>Send</button>
        <button type="button" disabled={!isAnswering} onClick={() => stream.current?.controller.abort()}>
          Stop
        </button>
      </form>
    </main>
  );
}
