"""The seed GAN with TensorFlow and Keras, whose model it is, as one compiled graph: seed-gan/B32, both steps, Adam 2e-4."""
import os

from protocol import begin, serve

workload, threads = begin("tensorflow")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(1)
batch = {"seed-gan/B32": 32}[workload]
layers = tf.keras.layers
G = tf.keras.Sequential([layers.Input((100,)), layers.Dense(128, "relu"), layers.Dense(128, "relu")])
G.add(layers.Dense(784, "sigmoid"))
G.add(layers.Reshape((28, 28, 1)))
D = tf.keras.Sequential([layers.Input((28, 28, 1))])
for channels in (64, 128, 256):
    D.add(layers.Conv2D(channels, 3, strides=2, padding="same"))
    D.add(layers.LeakyReLU(negative_slope=0.2))
D.add(layers.Flatten())
D.add(layers.Dense(1))
bce = tf.keras.losses.BinaryCrossentropy(from_logits=True)
of_g, of_d = (tf.keras.optimizers.Adam(2e-4, beta_1=0.5) for _ in range(2))
of_g.build(G.trainable_variables)
of_d.build(D.trainable_variables)
real = tf.random.uniform((batch, 28, 28, 1))
one, zero = tf.ones((batch, 1)), tf.zeros((batch, 1))


def move(player, optimizer, loss_of):
    with tf.GradientTape() as tape:
        loss = loss_of()
    optimizer.apply_gradients(zip(tape.gradient(loss, player.trainable_variables), player.trainable_variables))
    return loss


@tf.function
def step():
    z = tf.random.normal((batch, 100))
    fake = tf.stop_gradient(G(z))
    loss = move(D, of_d, lambda: bce(one, D(real)) + bce(zero, D(fake)))
    move(G, of_g, lambda: bce(one, D(G(z))))
    return loss


serve(f"tensorflow {tf.__version__} graph", lambda: step().numpy())
