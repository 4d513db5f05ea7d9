"""The classic tutorial's matrix factorization in TensorFlow: Adam on the dense squared error."""

import os
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np
import tensorflow as tf
from _answer import answer

tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OMP_NUM_THREADS"]))
tf.config.threading.set_inter_op_parallelism_threads(1)


def prepare(path):
    given = np.load(path)
    wanted = tf.constant(given["matrix"])

    def run(epochs, rate, compiled):
        users, items = tf.Variable(given["users"]), tf.Variable(given["items"])
        optimizer = tf.keras.optimizers.Adam(rate, epsilon=1e-8)
        optimizer.build([users, items])

        def step():
            with tf.GradientTape() as tape:
                error = wanted - tf.matmul(users, items, transpose_b=True)
                loss = tf.reduce_sum(tf.square(error))
            slopes = tape.gradient(loss, [users, items])
            optimizer.apply_gradients(zip(slopes, [users, items], strict=True))
            return loss

        step = tf.function(step) if compiled else step
        return {"losses": [float(loss) for loss in [step() for _ in range(epochs)]]}

    return run


if __name__ == "__main__":
    sys.exit(answer(prepare))
