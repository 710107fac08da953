import pytest
import pytest_asyncio
from browser import page_of, running_chromium

pytestmark = pytest.mark.asyncio(loop_scope="module")
@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium():
    async with running_chromium() as b:
        yield b

async def test_x(chromium) -> None:
    async with page_of(chromium) as page:
        await page.set_content("<h1>a</h1><script>document.title='x'</script>")
        assert await page.title() == ""
async def test_y(chromium) -> None:
    async with page_of(chromium) as page:
        await page.set_content("<h1>a</h1>")
