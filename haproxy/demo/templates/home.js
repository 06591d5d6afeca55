// Counts what has really arrived: a style sheet shows in its tile's style, a script has marked its
// tile, a picture has a width.
const tiles = [...document.querySelectorAll("#assets > *")];

const isHere = (tile) =>
  tile.naturalWidth > 0 || tile.dataset.here === "js" ||
  getComputedStyle(tile).getPropertyValue("--here").trim() === "css";

function show() {
  const loaded = tiles.filter(isHere).length;
  const live = document.body.dataset.live === "yes";
  document.body.dataset.loaded = loaded;
  document.querySelector("#state").textContent =
    loaded === tiles.length && live
      ? `All ${loaded} assets and the WebSocket are here.`
      : `${loaded} of ${tiles.length} assets are here, the WebSocket is ${live ? "open" : "not open"}.`;
}

const socket = new WebSocket(`${location.origin.replace("http", "ws")}/live`);
socket.onopen = () => socket.send("hello");
socket.onmessage = () => { document.body.dataset.live = "yes"; show(); };
socket.onclose = () => { document.body.dataset.live = "no"; show(); };
addEventListener("load", show);
