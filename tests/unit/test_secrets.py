"""What is not shown of what people declare: passwords, signatures, values of environment variables."""

from __future__ import annotations

import pytest

from batchpoint.entities.secrets import masked, masked_in, without_secrets


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://a.blob/c/x y.csv?sv=1&sig=a%2Fb=", "https://a.blob/c/x y.csv?sv=***&sig=***"),
        ("postgresql://me:pass@word@host:5432/db", "postgresql://me:***@word@host:5432/db"),
        ("git+https://token@host/x.git", "git+https://***@host/x.git"),
        ("abfss://container@account/x", "abfss://container@account/x"),
        ("https://host:8080/rows.csv", "https://host:8080/rows.csv"),
        ("azureml://datastores/d/paths/part-?/year=2024/", "azureml://datastores/d/paths/part-?/year=2024/"),
        ("/data/rows-?.csv", "/data/rows-?.csv"),
        ("azureml:rows:1", "azureml:rows:1"),
    ],
)
def test_an_address_keeps_all_but_what_opens_it(address: str, shown: str) -> None:
    assert masked(address) == shown


def test_addresses_are_masked_within_a_message() -> None:
    message = "'https://a.blob/x?sig=S' is gone: 403 for https://a.blob/x?sig=S."
    assert masked_in(message) == "'https://a.blob/x?sig=***' is gone: 403 for https://a.blob/x?sig=***"


def test_variables_keep_their_names_and_what_files_hold_is_shown_as_it_is() -> None:
    address = "https://a.blob/x?sig=S"
    told = {
        "deployment": {"environment_variables": {"KEY": "S"}},
        "pipeline": {"jobs": {"one": {"environment_variables": {"KEY": "S"}, "inputs": {"raw": address}}}},
        "inputs": {"data": {"path": address, "paths": [address]}},
        "error": {"message": f"{address} is gone"},
        "conda_file": {"dependencies": [{"pip": ["git+https://me:S@host/x.git", "numpy>=1.26"]}]},
        "shown": {"text": address, "rows": [[address]]},
    }
    hidden = without_secrets(told)
    assert hidden["deployment"] == {"environment_variables": {"KEY": "***"}}
    assert "S" not in str([hidden[key] for key in ("pipeline", "inputs", "error", "conda_file")])
    assert hidden["shown"] == told["shown"]
