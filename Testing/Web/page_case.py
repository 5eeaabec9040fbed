"""The page's server in this process, without a browser, and the first steps on it."""

import asyncio

from mimsegment_web.app import App

SAMPLE = "phantom-prostate"


def in_page(settings, act):
    """Run ``await act(app)`` on a fresh page."""

    async def run():
        app = App(settings)
        try:
            await app.start()
            return await act(app)
        finally:
            app.close()

    return asyncio.run(run())


async def segment(app):
    app.actions.open_sample(SAMPLE)
    await app.settle()
    app.actions.run()
    await app.settle(lambda: app.workflow.review is not None)
    await app.settle()
