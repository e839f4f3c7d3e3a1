"""`slimline webhooks`: create, list, show, delete, enable, rotate, test; deliveries and replay."""

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from app.cli.connection import DEFAULT_URL, ServerUrl, connect
from app.cli.edge import ExitCode, complain
from app.cli.output import AsJson, Limit, print_json, print_resource, print_resources
from app.client import Client
from app.contracts.webhooks import WebhookEvent

webhooks = typer.Typer(no_args_is_help=True, help="Tell other services of what happens, and see what was told.")

WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="A webhook's id, whk_….")]
DeliveryId = Annotated[str, typer.Argument(metavar="DELIVERY", help="A delivery's id, dlv_….")]

TEST_S = 30
"""How long `test` waits for its ping to be tried."""

_COLUMNS = ("id", "state", "url", "events", "failing_since")
_LOG_COLUMNS = ("id", "created_at", "type", "state", "tries", "status", "error")


@webhooks.command()
def create(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The URL that events are sent to.")],
    *,
    event: Annotated[list[WebhookEvent] | None, typer.Option(help="Only this; may be repeated. Default: all.")] = None,
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    url: ServerUrl = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Have events sent to a URL. The secret that verifies them is shown this once.

    Example: slimline webhooks create https://ci.example.com/slimline --event job.succeeded --event job.failed
    """
    body = {"url": target, "events": event or None, "description": description}
    with connect(url) as client:
        print_resource(client.post("/v1/webhooks", body), as_json=as_json)


@webhooks.command("list")
def list_webhooks(*, limit: Limit = 50, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List webhooks, newest first."""
    with connect(url) as client:
        print_resources(_COLUMNS, client.list("/v1/webhooks", limit=limit), as_json=as_json)


@webhooks.command()
def show(webhook_id: WebhookId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a webhook."""
    with connect(url) as client:
        print_resource(client.get(f"/v1/webhooks/{webhook_id}"), as_json=as_json)


@webhooks.command()
def delete(webhook_id: WebhookId, *, url: ServerUrl = DEFAULT_URL) -> None:
    """Delete a webhook and its log."""
    with connect(url) as client:
        client.delete(f"/v1/webhooks/{webhook_id}")
    typer.echo(f"{webhook_id} is deleted", err=True)


@webhooks.command()
def enable(webhook_id: WebhookId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Send events again to a webhook that was disabled."""
    with connect(url) as client:
        print_resource(client.post(f"/v1/webhooks/{webhook_id}/enable"), as_json=as_json)


@webhooks.command()
def rotate_secret(webhook_id: WebhookId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Replace the secret; for 24 hours events are signed with the old one as well."""
    with connect(url) as client:
        print_resource(client.post(f"/v1/webhooks/{webhook_id}/rotate-secret"), as_json=as_json)


@webhooks.command("test")
def send_ping(webhook_id: WebhookId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Send a ping and wait for its first try; status 1 if it did not arrive."""
    with connect(url) as client:
        delivery = _wait_for_try(client, client.post(f"/v1/webhooks/{webhook_id}/test"))
    if as_json:
        print_json(delivery)
    else:
        print_resources(_LOG_COLUMNS, [_summarise(delivery)], as_json=False)
    if not delivery["tries"]:
        complain(f"nothing was sent within {TEST_S} s", "is `slimline beat` running?")
    if delivery["state"] != "delivered":
        raise typer.Exit(ExitCode.FAILED)


@webhooks.command()
def deliveries(
    webhook_id: WebhookId, *, limit: Limit = 50, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """List what was sent to a webhook and what came of it, newest first."""
    with connect(url) as client:
        found = client.list(f"/v1/webhooks/{webhook_id}/deliveries", limit=limit)
        print_resources(_LOG_COLUMNS, found if as_json else map(_summarise, found), as_json=as_json)


@webhooks.command()
def replay(
    webhook_id: WebhookId, delivery_id: DeliveryId, *, url: ServerUrl = DEFAULT_URL, as_json: AsJson = False
) -> None:
    """Send an event again, under the same webhook-id."""
    with connect(url) as client:
        again = client.post(f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay")
    if as_json:
        print_json(again)
    else:
        typer.echo(again["id"])


def _wait_for_try(client: Client, delivery: Mapping[str, Any]) -> Mapping[str, Any]:
    give_up_at = time.monotonic() + TEST_S
    while not delivery["tries"] and time.monotonic() < give_up_at:
        time.sleep(0.2)
        delivery = client.get(delivery["links"]["self"])
    return delivery


def _summarise(delivery: Mapping[str, Any]) -> dict[str, Any]:
    """A delivery on one line: how many tries, and what came of the last."""
    tries = delivery["tries"]
    last = tries[-1] if tries else {}
    return {**delivery, "tries": len(tries), "status": last.get("status"), "error": last.get("error")}
