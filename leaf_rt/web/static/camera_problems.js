// What can go wrong with the browser's camera, and what to do next. One sentence and one step each.

const address = () => location.host;

const PROBLEMS = {
  insecure: () => [
    "The browser gives its camera only to secure pages.",
    "Open this page as http://localhost on the computer that runs leaf-rt, through an SSH tunnel " +
      `(ssh -L ${location.port || 80}:${address()} HOST), or behind https.`,
  ],
  NotAllowedError: (error) =>
    /system/i.test(error.message)
      ? [
          "The operating system does not let this browser use the camera.",
          "Allow the camera for this browser in the privacy settings of the system, then try again.",
        ]
      : [
          "This page may not use the camera, because permission was refused.",
          "Choose the camera symbol in the address bar, allow the camera for this page, then try again.",
        ],
  NotFoundError: () => [
    "This computer has no camera that the browser can find.",
    "Connect a camera and try again, or add a source.",
  ],
  NotReadableError: () => [
    "The camera is in use by another program, or does not answer.",
    "Close other programs that use it (calls, recorders), then try again.",
  ],
  OverconstrainedError: () => [
    "The camera cannot give pictures that leaf-rt can use.",
    "Choose another camera, or add a source.",
  ],
  SecurityError: () => [
    "The settings of this browser switch cameras off.",
    "Allow cameras in the browser's settings or ask who manages this computer, then try again.",
  ],
  lost: () => [
    "The camera was disconnected.",
    "Connect it again, then try again.",
  ],
};

/** A failure of the camera: `message` says what happened, `step` what to do next. */
export class CameraProblem extends Error {
  constructor(message, step) {
    super(message);
    this.step = step;
  }
}

/** Turn an error of getUserMedia, or the name of a problem, into a CameraProblem. */
export function cameraProblem(cause) {
  if (cause instanceof CameraProblem) return cause;
  const name = typeof cause === "string" ? cause : cause.name;
  const found = PROBLEMS[name === "DevicesNotFoundError" ? "NotFoundError" : name];
  if (found) return new CameraProblem(...found(cause));
  return new CameraProblem(`The camera could not be started: ${cause.message || name}.`, "Try again, or add a source.");
}
