"""Serves a file over RTSP with GStreamer, at /live: python3 gst_server.py PORT FILE [--codec h265] [--udp] [...].

Runs with the system's Python. An independent RTSP server. It confirms that the tests' own server follows the protocol.
"""

import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
gi.require_version("GstRtsp", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402 - the versions come first

PAYLOADS = {
    "h264": "h264parse ! rtph264pay config-interval=1",
    "h265": "h265parse ! rtph265pay config-interval=1",
    "mjpeg": "jpegparse ! rtpjpegpay",
}
METHODS = {"basic": GstRtsp.RTSPAuthMethod.BASIC, "digest": GstRtsp.RTSPAuthMethod.DIGEST}

parser = argparse.ArgumentParser()
parser.add_argument("port")
parser.add_argument("file", help="MP4 or MOV")
parser.add_argument("--codec", choices=PAYLOADS, default="h264", help="what the file holds")
parser.add_argument("--udp", action="store_true", help="nothing else")
parser.add_argument("--login", metavar="USER:PASSWORD", help="only these may see it")
parser.add_argument("--method", choices=METHODS, default="basic", help="how they say so")
given = parser.parse_args()

Gst.init(None)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(given.port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f"( filesrc location={given.file} ! qtdemux ! {PAYLOADS[given.codec]} name=pay0 )")
if given.udp:
    factory.set_protocols(GstRtsp.RTSPLowerTrans.UDP)
if given.login:
    user, _, password = given.login.partition(":")
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.set_supported_methods(METHODS[given.method])
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    auth.add_digest(user, password, token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for permission in ("access", "construct"):
        permissions.add_permission_for_role("viewer", f"media.factory.{permission}", True)
    factory.set_permissions(permissions)
server.get_mount_points().add_factory("/live", factory)
server.attach(None)
sys.stdout.write("ready\n")
sys.stdout.flush()
GLib.MainLoop().run()
