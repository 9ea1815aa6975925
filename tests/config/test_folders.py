import socket
from pathlib import Path

import pytest

from doorward.config import (
    ConfigError,
    Ports,
    default_data_dir,
    find_socket,
    load_ports,
    save_ports,
    save_private,
    socket_path,
)
from doorward.config.folders import expanded


def test_the_data_dir_is_the_variable_then_roots_then_the_platforms() -> None:
    assert default_data_dir({"DOORWARD_DATA_DIR": "/x"}, root=True) == Path("/x")
    assert default_data_dir({"HOME": "/home/a"}, root=True) == Path("/var/lib/doorward")
    assert default_data_dir({"HOME": "/home/a", "XDG_DATA_HOME": "/data"}, root=False) == Path(
        "/data/doorward"
    )
    # A relative base is to be ignored, says the base directory specification.
    assert default_data_dir({"HOME": "/home/a", "XDG_DATA_HOME": "data"}, root=False).parts[-1] == "doorward"
    assert default_data_dir({"HOME": "/home/a", "XDG_DATA_HOME": "data"}, root=False).is_relative_to(
        "/home/a"
    )


@pytest.mark.parametrize("text", ["~nobody-here/x", "~nobody-here"])
def test_a_home_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="has none here") as refused:
        expanded(Path(text))
    assert refused.value.cure == "Write the whole path."
    with pytest.raises(ConfigError):
        default_data_dir({"DOORWARD_DATA_DIR": text}, root=False)


def test_ports_are_kept(tmp_path: Path) -> None:
    assert load_ports(tmp_path) is None
    save_ports(tmp_path, Ports(listen=1, door=2, relay=3, stun=4))
    assert load_ports(tmp_path) == Ports(listen=1, door=2, relay=3, stun=4)


def test_a_broken_ports_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"door": "x"}')
    with pytest.raises(ConfigError) as refused:
        load_ports(tmp_path)
    assert refused.value.place == str(tmp_path / "ports.json")
    assert "delete" in refused.value.cure


def test_what_is_private_is_the_owners_alone_and_a_link_there_is_not_followed(tmp_path: Path) -> None:
    file, other = tmp_path / "link", tmp_path / "other"
    other.write_text("theirs")
    file.symlink_to(other)
    save_private(file, "secret\n")
    assert (file.read_text(), other.read_text()) == ("secret\n", "theirs")
    assert not file.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    save_private(file, "new")
    assert file.read_text() == "new"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        save_private(tmp_path / "folder", "x")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "link", "other"]


def test_a_short_socket_path_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = Path("/short")
    assert find_socket(folder, "s") == folder / "s"
    assert socket_path(tmp_path, "s", {}) == tmp_path / "s"


def _long(tmp_path: Path) -> Path:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    return folder


def test_a_long_one_moves_to_the_runtime_folder_and_is_found_without_the_environment(tmp_path: Path) -> None:
    folder, runtime = _long(tmp_path), tmp_path / "run"
    runtime.mkdir()
    path = socket_path(folder, "doorward.sock", {"XDG_RUNTIME_DIR": str(runtime)})
    assert path.is_relative_to(runtime)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert find_socket(folder, "doorward.sock") == path
    assert socket_path(folder, "doorward.sock", {"XDG_RUNTIME_DIR": str(runtime)}) == path
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_a_runtime_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    folder, runtime = _long(tmp_path), tmp_path / "run"
    runtime.mkdir()
    environ = {"XDG_RUNTIME_DIR": str(runtime)}
    socket_path(folder, "s", environ).parent.chmod(0o777)
    with pytest.raises(ConfigError, match="not a folder of ours alone"):
        socket_path(folder, "s", environ)


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    folder, runtime, elsewhere = _long(tmp_path), tmp_path / "run", tmp_path / "elsewhere"
    runtime.mkdir()
    elsewhere.mkdir(mode=0o700)
    environ = {"XDG_RUNTIME_DIR": str(runtime)}
    place = socket_path(folder, "s", environ).parent
    place.rmdir()
    place.symlink_to(elsewhere)
    with pytest.raises(ConfigError):
        socket_path(folder, "s", environ)
