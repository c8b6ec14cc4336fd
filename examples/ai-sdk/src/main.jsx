import { useChat } from "@ai-sdk/react";
import { createRoot } from "react-dom/client";

import { direct } from "./transport.js";

const transport = direct(import.meta.env.VITE_LLM_MODEL ?? "openai/gpt-4o-mini");

function Chat() {
  const { messages, sendMessage, status, stop, error } = useChat({ transport });
  const isAnswering = status === "submitted" || status === "streaming";

  function ask(event) {
    event.preventDefault();
    sendMessage({ text: new FormData(event.currentTarget).get("question") });
    event.currentTarget.reset();
  }

  return (
    <main>
      {messages.map(({ id, role, parts }) => (
        <p key={id} className={role}>
          {parts.map((part) => (part.type === "text" ? part.text : ""))}
        </p>
      ))}
      {error && <p role="alert">{error.message}</p>}
      <form onSubmit={ask}>
        <input name="question" aria-label="Question" required autoFocus />
        <button disabled={isAnswering}>Send</button>
        <button type="button" disabled={!isAnswering} onClick={stop}>Stop</button>
      </form>
    </main>
  );
}

createRoot(document.querySelector("#root")).render(<Chat />);
