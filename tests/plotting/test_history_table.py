"""Which tables of a history can be read, and which are refused."""

import pytest

from keras_transfer.plotting.history_table import read_csv


def test_of_an_epoch_that_is_there_again_the_later_run_counts_with_a_warning(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss\n0,0.9\n1,0.8\n2,0.7\n1,0.6\n2,0.5\n3,0.4\n")
    with pytest.warns(UserWarning, match=r"log.csv': epoch 1 is there again; the later run counts"):
        assert read_csv(path) == ({"loss": [0.9, 0.6, 0.5, 0.4]}, [0, 1, 2, 3], [])


def test_two_runs_in_one_table_are_not_merged_into_one_curve(tmp_path):
    path = tmp_path / "log.csv"
    rows = [*((epoch, 0.9 - epoch / 20) for epoch in range(12)), *((e, 0.5) for e in range(4))]
    path.write_text("epoch,loss\n" + "".join(f"{epoch},{loss}\n" for epoch, loss in rows))
    with pytest.warns(UserWarning, match=r"epoch 0 is there again; the later run"):
        assert read_csv(path) == ({"loss": [0.5] * 4}, [0, 1, 2, 3], [])


def test_a_last_row_with_too_few_columns_is_left_out_with_a_warning(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,val_loss\n0,0.9,0.8\n1,0.7\n2,0.6,0.5\n1,0.")
    with pytest.warns(UserWarning, match=r"log.csv': line 5, the last, is left out as torn"):
        history, epochs, _ = read_csv(path)
    assert (history, epochs) == ({"loss": [0.9, 0.7, 0.6], "val_loss": [0.8, None, 0.5]}, [0, 1, 2])


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_table_that_is_cut_anywhere_in_its_last_row_gives_no_other_number(tmp_path, cut):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss\n0,0.9\n1,0.0625\n"[:-cut])
    with pytest.warns(UserWarning, match=r"log.csv': line 3, the last, is left out as torn"):
        assert read_csv(path) == ({"loss": [0.9]}, [0], [])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_the_end_of_a_row(tmp_path, end):
    path = tmp_path / "log.csv"
    path.write_bytes(f"epoch,loss{end}0,0.9{end}1,0.5{end}".encode())
    assert read_csv(path) == ({"loss": [0.9, 0.5]}, [0, 1], [])


def test_whole_numbers_stay_whole(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,trainable_parameters\n0,1.0,2305\n")
    history, _, _ = read_csv(path)
    assert [type(values[0]) for values in history.values()] == [float, int]


def test_a_column_that_is_there_twice_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss,loss\n0,0.9,0.8\n")
    with pytest.raises(ValueError, match=r"log.csv' is no history \(two columns .* 'loss'\)"):
        read_csv(path)


def test_a_table_that_a_spreadsheet_saved_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss\n0,0.9\n", encoding="utf-8-sig")
    assert read_csv(path) == ({"loss": [0.9]}, [0], [])


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\xff\x00", b"epoch,loss\n0,\xff\n", b"\0\0\n\0"])
def test_of_a_file_that_is_no_text_the_error_names_the_file(tmp_path, content):
    (tmp_path / "h.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"h.png' is no history .* Expected a table"):
        read_csv(tmp_path / "h.png")


@pytest.mark.parametrize(
    ("content", "why"),
    [("", "no rows"), ("epoch,loss\n", "no rows"), ("file,label\na,b\n", "no column 'epoch', but")],
)
def test_a_table_without_rows_or_epochs_is_an_error_that_names_it(tmp_path, content, why):
    path = tmp_path / "log.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"log.csv' is no history \({why}"):
        read_csv(path)


def test_of_a_table_with_another_separator_the_error_says_which_is_expected(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch;loss\n0;0.9\n")
    with pytest.raises(ValueError, match=r"but 'epoch;loss'\)\. Expected .* separated by commas"):
        read_csv(path)
