// Server-sent events over fetch(). EventSource cannot POST, so the stream is read by hand.
//
// Network chunks end anywhere: inside a character, a line, a CRLF. The decoder holds back
// half a character, `rest` half a line; nothing here may assume that a chunk is an event.

/** Yield the data of each event in `body`, a ReadableStream of bytes, as soon as it is whole. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    while (true) {
      const { done, value } = await reader.read();
      if (done) return; // An event without its blank line is not whole: drop it.
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "" && data.length > 0) {
          yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(5).replace(/^ /, ""));
        }
        // Lines with ":" first are comments that keep the connection alive. `event:`, `id:`
        // and `retry:` carry nothing that chat completions need.
      }
    }
  } finally {
    // Reached by `break` and by errors too: closes the connection, which stops the work (and
    // the bill) at the other end.
    await reader.cancel().catch(() => {});
  }
}
