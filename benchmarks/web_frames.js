// Counts the pictures of each view in the browser; times are those of Date.now(), in ms.
(function () {
  const times = {};
  let coloredAt = 0, listedAt = 0, waiting = null;
  const clock = () => performance.timeOrigin + performance.now();
  const view = (image) => image.closest(".view")?.dataset.test.replace("view-", "");

  // Grays have equal red, green and blue; JPEG and the crosshair leave few others.
  function hasColors(image) {
    const canvas = new OffscreenCanvas(64, 64);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, 64, 64);
    const pixels = context.getImageData(0, 0, 64, 64).data;
    let count = 0;
    for (let i = 0; i < pixels.length; i += 4) {
      const three = [pixels[i], pixels[i + 1], pixels[i + 2]];
      if (Math.max(...three) - Math.min(...three) > 25) count += 1;
    }
    return count > 400;
  }

  document.addEventListener("load", (event) => {
    const name = event.target.tagName === "IMG" && view(event.target);
    if (!name) return;
    (times[name] ??= []).push(clock());
    if (name === waiting && hasColors(event.target)) {
      coloredAt = clock();
      waiting = null;
    }
  }, true);

  new MutationObserver(() => {
    if (!listedAt && document.querySelector('[data-test^="row-"]')) {
      requestAnimationFrame(() => { listedAt ||= clock(); });
    }
  }).observe(document, { childList: true, subtree: true });

  window.mimFrames = {
    times: (name) => times[name] ?? [],
    clear: () => Object.keys(times).forEach((name) => { times[name] = []; }),
    size: (name) => {
      const image = document.querySelector(`[data-test="view-${name}"] img`);
      return [image.naturalWidth, image.naturalHeight];
    },
    waitForColors: (name) => { waiting = name; coloredAt = listedAt = 0; },
    colored: () => coloredAt,
    listed: () => listedAt,
  };
})();
