"""The same columns in scikit-learn on pandas: ordinal codes and standard scores.

It runs under ``.venv-peers/deepctr``, whose tutorials prepare a table this way.
"""

import numpy as np
import pandas as pd
from _answer import answer
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import OrdinalEncoder, StandardScaler


def start(table, train, numbers, out):
    numbers = numbers.split(",")
    frame = pd.read_csv(table, keep_default_na=False)
    texts = [name for name in frame.columns if name not in numbers]
    frame[texts] = frame[texts].astype(str)
    learnt = frame.iloc[: int(train)]
    # Codes are int32 as ours are; a value that training never held gives -1.
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, dtype=np.int32)

    def run(work):
        if work == "fit":
            run.fitted = ColumnTransformer(
                [("codes", codes, texts), ("numbers", StandardScaler(), numbers)],
                sparse_threshold=0,
            ).fit(learnt)
        elif work == "apply":
            parts = run.fitted.named_transformers_
            run.encoded = [
                parts["codes"].transform(frame[texts]),
                parts["numbers"].transform(frame[numbers]).astype(np.float32),
            ]
        elif work == "one":
            for row in range(20):
                one = pd.DataFrame({name: [frame[name].iat[row]] for name in frame.columns})
                parts = run.fitted.named_transformers_
                parts["codes"].transform(one[texts])
                parts["numbers"].transform(one[numbers])
            return {"rows": 20}
        else:
            np.savez(out, codes=run.encoded[0], numbers=run.encoded[1], names=np.array(texts))
        return {}

    return run


if __name__ == "__main__":
    answer(start)
