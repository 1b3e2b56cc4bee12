"""Reads one file and writes another: batch.py INPUT_FILE INPUT_FOLDER OUTPUT_FILE OUTPUT_FOLDER."""

import sys
from pathlib import Path


def main(input_file: str, input_folder: str, output_file: str, output_folder: str) -> None:
    source, target = Path(input_folder, input_file), Path(output_folder, output_file)
    words = len(source.read_text().split())
    target.parent.mkdir(parents=True)  # the folder of the results is this script's to make
    target.write_text(f"Read: {source}\nWritten: {target}\n")
    print(f"{words} words were read.")


if __name__ == "__main__":
    main(*sys.argv[1:5])
