// Starts the viewer on this server's own document. Nothing is loaded from
// elsewhere, and a token that is put in is forgotten with the page.
"use strict";

const place = document.getElementById("viewer");

function show(spec) {
  // Where this page is, the server is: also behind a proxy that knows it by a
  // path or by another name than the document's.
  spec.servers = [{ url: new URL(".", location.href).href.replace(/\/$/, "") }];
  SwaggerUIBundle({
    spec,
    domNode: place,
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
    validatorUrl: null,
    persistAuthorization: false,
    queryConfigEnabled: false,
    deepLinking: false,
    displayRequestDuration: true,
    defaultModelsExpandDepth: 0,
  });
}

fetch("openapi.json")
  .then((answer) => {
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    return answer.json();
  })
  .then(show)
  .catch((error) => {
    place.textContent = `openapi.json could not be read: ${error.message}. Reload the page.`;
  });
