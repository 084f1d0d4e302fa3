"""Messages stay short however many names there are."""

import pytest
from PIL import Image

from keras_transfer import image_folder
from keras_transfer.utils.name_lists import some


@pytest.mark.parametrize(
    ("count", "said"), [(0, ""), (1, "0"), (3, "0, 1, 2"), (1003, "0, 1, 2 and 1,000 more")]
)
def test_some_names_are_listed_and_the_others_counted(count, said):
    assert some(range(count), 3) == said


def test_a_warning_of_many_small_classes_names_a_few(tmp_path):
    for number in range(60):
        folder = tmp_path / f"a class with a long name, number {number}"
        folder.mkdir()
        for image in range(1 if number else 9):
            Image.new("RGB", (8, 8), (number, image, 0)).save(folder / f"{image}.png")
    with pytest.warns(UserWarning, match=r"fewer than 3 images.* and 54 more") as warned:
        image_folder(tmp_path, image_size=(8, 8), verbose=0)
    assert max(len(str(one.message)) for one in warned) < 600
